import Foundation
import os

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

    /// Throws an EngineError: before anything is loaded where the model does not fit in memory.
    static func load(_ described: Model) async throws -> Engine {
        try checkMemory(for: described)
        llama_backend_init()
        var modelParameters = llama_model_default_params()
        #if targetEnvironment(simulator)
        modelParameters.n_gpu_layers = 0
        #endif
        guard let model = llama_model_load_from_file(described.path, modelParameters) else {
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

    /// What iOS still gives this app, against weights, cache and workspace. The simulator tells nothing: 0.
    private static func checkMemory(for described: Model) throws {
        let needed = described.size + described.context * described.kv_bytes_per_token + described.work_bytes
        let free = Int(os_proc_available_memory())
        guard free == 0 || needed <= free else {
            let needs = ByteCountFormatter.string(fromByteCount: Int64(needed), countStyle: .memory)
            let has = ByteCountFormatter.string(fromByteCount: Int64(free), countStyle: .memory)
            throw EngineError(message: "The model needs \(needs) of memory, and this app may use \(has) more.")
        }
    }

    /// Whole characters as they come. Ends at an end token, at the end of the context, or when the reader is cancelled.
    nonisolated func answer(_ pieces: [Piece]) -> AsyncThrowingStream<String, Error> {
        AsyncThrowingStream { stream in
            let task = Task {
                do {
                    try await self.generate(pieces) { text in _ = stream.yield(text) }
                    stream.finish()
                } catch {
                    stream.finish(throwing: error)
                }
            }
            stream.onTermination = { _ in task.cancel() }
        }
    }

    private func generate(_ pieces: [Piece], yield: @Sendable (String) -> Void) throws {
        let sampler = makeSampler()
        defer { llama_sampler_free(sampler) }
        var fresh = try prefill(tokens(of: pieces))
        var characters = Characters()
        while !Task.isCancelled, cached.count + fresh.count <= Int(llama_n_ctx(context)) {
            try decode(fresh)
            let token = llama_sampler_sample(sampler, context, -1)
            if llama_vocab_is_eog(vocabulary, token) { break }
            let text = characters.add(bytes(of: token))
            if !text.isEmpty { yield(text) }
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

    private func bytes(of token: llama_token) -> [UInt8] {
        var buffer = [CChar](repeating: 0, count: 256)
        let count = llama_token_to_piece(vocabulary, token, &buffer, Int32(buffer.count), 0, false)
        return buffer.prefix(Int(max(count, 0))).map { UInt8(bitPattern: $0) }
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
