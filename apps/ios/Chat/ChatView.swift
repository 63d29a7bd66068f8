import SwiftUI

struct ChatView: View {
    @ObservedObject var conversation: Conversation
    @State private var question = ""

    var body: some View {
        NavigationView {
            VStack(spacing: 0) {
                messages
                if let problem = conversation.problem {
                    Text(problem).foregroundColor(.red).padding()
                }
                ask
            }
            .navigationTitle(conversation.name)
            .navigationBarTitleDisplayMode(.inline)
            .toolbar {
                Button("New chat") { conversation.clear() }
                    .disabled(conversation.state == .loading)
            }
        }
        .navigationViewStyle(.stack)
        .task { await conversation.load() }
    }

    private var messages: some View {
        ScrollViewReader { scroll in
            ScrollView {
                LazyVStack(alignment: .leading, spacing: 12) {
                    ForEach(conversation.messages) { message in
                        Bubble(message: message).id(message.id)
                    }
                }
                .padding()
            }
            .onChange(of: conversation.messages.last?.text) { _ in
                scroll.scrollTo(conversation.messages.last?.id, anchor: .bottom)
            }
        }
    }

    private var ask: some View {
        HStack {
            TextField("Ask something", text: $question)
                .textFieldStyle(.roundedBorder)
                .onSubmit(send)
            if conversation.state == .answering {
                Button("Stop") { conversation.stop() }
            } else {
                Button("Send", action: send)
                    .disabled(conversation.state != .ready || question.isEmpty)
            }
        }
        .padding()
    }

    private func send() {
        guard conversation.state == .ready, !question.isEmpty else { return }
        conversation.ask(question)
        question = ""
    }
}

private struct Bubble: View {
    let message: Message

    var body: some View {
        let mine = message.role == .user
        Text(message.text)
            .textSelection(.enabled)
            .padding(mine ? 10 : 0)
            .background(mine ? Color.accentColor.opacity(0.15) : Color.clear)
            .clipShape(RoundedRectangle(cornerRadius: 14))
            .frame(maxWidth: .infinity, alignment: mine ? .trailing : .leading)
    }
}
