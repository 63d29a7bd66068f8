import Foundation

struct Message: Identifiable {
    enum Role { case user, assistant }

    let id = UUID()
    let role: Role
    var text: String
}

/// The messages on the screen, and what the engine does about them.
@MainActor
final class Conversation: ObservableObject {
    enum State { case loading, ready, answering, failed }

    @Published private(set) var messages: [Message] = []
    @Published private(set) var state = State.loading
    @Published private(set) var problem: String?
    @Published private(set) var name = "edge"

    private var model: Model?
    private var engine: Engine?
    private var running: Task<Void, Never>?

    func load() async {
        guard engine == nil else { return }
        do {
            let model = try Model.inBundle()
            self.model = model
            name = model.name
            engine = try await Engine.load(model)
            state = .ready
        } catch {
            state = .failed
            problem = error.localizedDescription
        }
    }

    func ask(_ text: String) {
        guard let engine, let model, state == .ready else { return }
        messages.append(Message(role: .user, text: text))
        let pieces = Prompt.pieces(of: messages, for: model)
        messages.append(Message(role: .assistant, text: ""))
        state = .answering
        problem = nil
        running = Task {
            do {
                for try await piece in await engine.answer(pieces) {
                    messages[messages.count - 1].text += piece
                }
            } catch {
                problem = error.localizedDescription
            }
            state = .ready
        }
    }

    func stop() {
        running?.cancel()
    }

    func clear() {
        stop()
        Task {
            await running?.value
            messages = []
        }
    }
}
