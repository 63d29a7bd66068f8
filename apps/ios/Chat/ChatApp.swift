import SwiftUI

@main
struct ChatApp: App {
    @StateObject private var conversation = Conversation()

    var body: some Scene {
        WindowGroup {
            ChatView(conversation: conversation)
        }
    }
}
