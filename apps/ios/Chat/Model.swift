import Foundation

/// model.json, which `edge package --app ios` writes (apps/android/PROTOCOL.md; `special`: edge/packaging/web_model.py).
struct Model: Decodable {
    /// The texts between the contents of the messages, rendered from the model's chat template.
    struct Turns: Decodable {
        let trim: Bool
        let start_user: String
        let start_system: String?
        let system_user: String?
        let user_assistant: String
        let assistant_user: String
        let reply: String
    }

    let name: String
    let file: String
    let size: Int
    let context: Int
    let kv_bytes_per_token: Int
    let work_bytes: Int
    let turns: Turns?
    let special: [String]
    let strip: [StripRule]
    let sampling: [String: Double]

    var path: String {
        Bundle.main.bundleURL.appendingPathComponent(file).path
    }

    static func inBundle() throws -> Model {
        guard let url = Bundle.main.url(forResource: "model", withExtension: "json") else {
            throw EngineError(message: "The app holds no model.json: package it again.")
        }
        return try JSONDecoder().decode(Model.self, from: Data(contentsOf: url))
    }
}

/// White space around `text` that it swallows: [text, left, right].
struct StripRule: Decodable {
    let text: String
    let left: Bool
    let right: Bool

    init(from decoder: Decoder) throws {
        var values = try decoder.unkeyedContainer()
        text = try values.decode(String.self)
        left = try values.decode(Bool.self)
        right = try values.decode(Bool.self)
    }
}

struct EngineError: LocalizedError {
    let message: String
    var errorDescription: String? { message }
}
