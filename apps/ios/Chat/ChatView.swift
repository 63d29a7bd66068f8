import SwiftUI

struct ChatView: View {
    @ObservedObject var conversation: Conversation
    @State private var question = ""
    @State private var showsSettings = false
    @AppStorage("system") private var system = ""

    var body: some View {
        NavigationView {
            VStack(spacing: 0) {
                messages
                if conversation.state == .loading {
                    ProgressView("Loading the model").padding()
                }
                if let problem = conversation.problem {
                    Text(problem).foregroundColor(.red).padding()
                }
                ask
            }
            .navigationTitle(conversation.name)
            .navigationBarTitleDisplayMode(.inline)
            .toolbar {
                ToolbarItem(placement: .navigationBarLeading) {
                    Button { showsSettings = true } label: { Label("Settings", systemImage: "gearshape") }
                }
                ToolbarItem(placement: .navigationBarTrailing) {
                    Button { conversation.clear() } label: { Label("New chat", systemImage: "square.and.pencil") }
                        .disabled(conversation.messages.isEmpty)
                }
            }
            .sheet(isPresented: $showsSettings) {
                SettingsView(system: $system, takesSystem: conversation.takesSystem)
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
                if let last = conversation.messages.last { scroll.scrollTo(last.id, anchor: .bottom) }
            }
        }
    }

    private var ask: some View {
        HStack {
            TextField("Ask something", text: $question)
                .textFieldStyle(.roundedBorder)
                .onSubmit(send)
            if conversation.state == .answering {
                Button { conversation.stop() } label: { Label("Stop", systemImage: "stop.circle.fill") }
                    .labelStyle(.iconOnly)
            } else {
                Button(action: send) { Label("Send", systemImage: "arrow.up.circle.fill") }
                    .labelStyle(.iconOnly)
                    .disabled(conversation.state != .ready || question.isEmpty)
            }
        }
        .padding()
    }

    private func send() {
        guard conversation.state == .ready, !question.isEmpty else { return }
        conversation.ask(question, system: system)
        question = ""
    }
}

private struct Bubble: View {
    let message: Message

    var body: some View {
        let mine = message.role == .user
        Text(message.text)
            .textSelection(.enabled)
            .accessibilityLabel(mine ? "You: \(message.text)" : message.text)
            .padding(mine ? 10 : 0)
            .background(mine ? Color.accentColor.opacity(0.15) : Color.clear)
            .clipShape(RoundedRectangle(cornerRadius: 14))
            .frame(maxWidth: .infinity, alignment: mine ? .trailing : .leading)
    }
}
