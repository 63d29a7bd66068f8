import SwiftUI

struct SettingsView: View {
    @Binding var system: String
    let takesSystem: Bool
    @Environment(\.dismiss) private var dismiss

    var body: some View {
        NavigationView {
            Form {
                Section {
                    TextEditor(text: $system)
                        .frame(minHeight: 96)
                        .disabled(!takesSystem)
                        .accessibilityLabel("System prompt")
                } header: {
                    Text("System prompt")
                } footer: {
                    Text(takesSystem ? "Told to the model before each conversation."
                        : "This model takes no system prompt.")
                }
            }
            .navigationTitle("Settings")
            .navigationBarTitleDisplayMode(.inline)
            .toolbar {
                ToolbarItem(placement: .confirmationAction) {
                    Button("Done") { dismiss() }
                }
            }
        }
        .navigationViewStyle(.stack)
    }
}
