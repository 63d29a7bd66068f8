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

    var takesSystem: Bool { model?.turns?.start_system != nil }

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

    /// `system`: told to the model before the conversation; "" for nothing.
    func ask(_ text: String, system: String) {
        guard let engine, let model, state == .ready else { return }
        messages.append(Message(role: .user, text: text))
        let pieces = Prompt.pieces(of: messages, system: system, for: model)
        let answer = Message(role: .assistant, text: "")
        messages.append(answer)
        state = .answering
        problem = nil
        running = Task {
            do {
                for try await piece in engine.answer(pieces) { add(piece, to: answer.id) }
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
        messages = []
        problem = nil
    }

    /// A cleared conversation has no place for what was still on its way.
    private func add(_ piece: String, to id: UUID) {
        guard let index = messages.firstIndex(where: { $0.id == id }) else { return }
        messages[index].text += piece
    }
}
