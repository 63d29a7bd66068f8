import Foundation

/// llama.cpp with one model and one conversation in its cache. An actor: one call at a time.
actor Engine {
    private let model: OpaquePointer
    private let context: OpaquePointer
    private let vocabulary: OpaquePointer
    private let sampling: [String: Double]
    private var cached: [llama_token] = []

    private init(model: OpaquePointer, context: OpaquePointer, sampling: [String: Double]) {
        self.model = model
        self.context = context
        vocabulary = llama_model_get_vocab(model)
        self.sampling = sampling
    }

    deinit {
        llama_free(context)
        llama_model_free(model)
    }

    static func load(_ described: Model) async throws -> Engine {
        llama_backend_init()
        guard let model = llama_model_load_from_file(described.path, llama_model_default_params()) else {
            throw EngineError(message: "The model could not be loaded: \(described.file)")
        }
        var parameters = llama_context_default_params()
        parameters.n_ctx = UInt32(described.context)
        guard let context = llama_init_from_model(model, parameters) else {
            llama_model_free(model)
            throw EngineError(message: "There is not enough memory for a context of \(described.context) tokens.")
        }
        return Engine(model: model, context: context, sampling: described.sampling)
    }

    /// Whole characters as they come. Ends at an end token, at the end of the context, or when the task is cancelled.
    func answer(_ pieces: [Piece]) -> AsyncThrowingStream<String, Error> {
        AsyncThrowingStream { stream in
            let task = Task {
                do {
                    try self.generate(pieces) { stream.yield($0) }
                    stream.finish()
                } catch {
                    stream.finish(throwing: error)
                }
            }
            stream.onTermination = { _ in task.cancel() }
        }
    }

    private func generate(_ pieces: [Piece], yield: (String) -> Void) throws {
        let sampler = makeSampler()
        defer { llama_sampler_free(sampler) }
        var fresh = try prefill(tokens(of: pieces))
        var pending = Data()
        while !Task.isCancelled, cached.count + fresh.count <= Int(llama_n_ctx(context)) {
            try decode(fresh)
            let token = llama_sampler_sample(sampler, context, -1)
            if llama_vocab_is_eog(vocabulary, token) { break }
            pending.append(bytes(of: token))
            if let text = String(data: pending, encoding: .utf8) {
                yield(text)
                pending = Data()
            }
            fresh = [token]
        }
    }

    /// What of the prompt the cache does not hold yet; at least its last token.
    private func prefill(_ prompt: [llama_token]) throws -> [llama_token] {
        guard !prompt.isEmpty, prompt.count < Int(llama_n_ctx(context)) else {
            throw EngineError(message: "The conversation is longer than the model's context: start a new chat.")
        }
        let same = min(zip(cached, prompt).prefix { $0 == $1 }.count, prompt.count - 1)
        llama_memory_seq_rm(llama_get_memory(context), 0, llama_pos(same), -1)
        cached = Array(prompt[..<same])
        return Array(prompt[same...])
    }

    private func decode(_ tokens: [llama_token]) throws {
        let step = Int(llama_n_batch(context))
        for start in stride(from: 0, to: tokens.count, by: step) {
            try Task.checkCancellation()
            var chunk = Array(tokens[start..<min(start + step, tokens.count)])
            let status = chunk.withUnsafeMutableBufferPointer { buffer in
                llama_decode(context, llama_batch_get_one(buffer.baseAddress, Int32(buffer.count)))
            }
            guard status == 0 else { throw EngineError(message: "llama.cpp failed (\(status)).") }
            cached += chunk
        }
    }

    private func tokens(of pieces: [Piece]) -> [llama_token] {
        var all: [llama_token] = []
        let start = llama_vocab_bos(vocabulary)
        for piece in pieces {
            let text = Array(piece.text.utf8CString)
            let length = Int32(text.count - 1)
            var found = [llama_token](repeating: 0, count: text.count + 8)
            let count = llama_tokenize(vocabulary, text, length, &found, Int32(found.count), false, piece.parsed)
            all += found.prefix(Int(max(count, 0)))
        }
        return llama_vocab_get_add_bos(vocabulary) && all.first != start ? [start] + all : all
    }

    private func bytes(of token: llama_token) -> Data {
        var buffer = [CChar](repeating: 0, count: 256)
        let count = llama_token_to_piece(vocabulary, token, &buffer, Int32(buffer.count), 0, false)
        return Data(buffer.prefix(Int(max(count, 0))).map { UInt8(bitPattern: $0) })
    }

    /// The model's own sampling; greedy where it names none.
    private func makeSampler() -> UnsafeMutablePointer<llama_sampler> {
        let chain = llama_sampler_chain_init(llama_sampler_chain_default_params())!
        guard let temperature = sampling["temperature"], temperature > 0 else {
            llama_sampler_chain_add(chain, llama_sampler_init_greedy())
            return chain
        }
        llama_sampler_chain_add(chain, llama_sampler_init_top_k(Int32(sampling["top_k"] ?? 0)))
        llama_sampler_chain_add(chain, llama_sampler_init_top_p(Float(sampling["top_p"] ?? 1), 1))
        llama_sampler_chain_add(chain, llama_sampler_init_min_p(Float(sampling["min_p"] ?? 0), 1))
        llama_sampler_chain_add(chain, llama_sampler_init_temp(Float(temperature)))
        llama_sampler_chain_add(chain, llama_sampler_init_dist(UInt32.random(in: 0...UInt32.max)))
        return chain
    }
}
