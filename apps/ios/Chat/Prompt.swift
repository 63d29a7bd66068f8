import Foundation

/// A part of a prompt, to be tokenized by itself. Only where `parsed` may it hold special tokens.
struct Piece {
    var text: String
    let parsed: Bool
}

enum Prompt {
    /// As `edge chat` makes it: special tokens come from the template alone, their text in a message stays text.
    static func pieces(of messages: [Message], system: String, for model: Model) -> [Piece] {
        var pieces: [Piece] = []
        for (index, message) in messages.enumerated() {
            if let turns = model.turns {
                if index == 0 {
                    start(turns, system: system, of: model, to: &pieces)
                } else {
                    add(message.role == .user ? turns.assistant_user : turns.user_assistant, parsed: true, to: &pieces)
                }
            } else if index > 0 {
                add("\n", parsed: false, to: &pieces)
            }
            addContent(message.text, of: model, to: &pieces)
        }
        add(model.turns?.reply ?? "", parsed: true, to: &pieces)
        return pieces.map { piece in
            piece.parsed ? Piece(text: strip(piece.text, rules: model.strip), parsed: true) : piece
        }
    }

    private static func start(_ turns: Model.Turns, system: String, of model: Model, to pieces: inout [Piece]) {
        guard !system.isEmpty, let startSystem = turns.start_system, let systemUser = turns.system_user else {
            return add(turns.start_user, parsed: true, to: &pieces)
        }
        add(startSystem, parsed: true, to: &pieces)
        addContent(system, of: model, to: &pieces)
        add(systemUser, parsed: true, to: &pieces)
    }

    private static func addContent(_ text: String, of model: Model, to pieces: inout [Piece]) {
        guard let turns = model.turns else { return add(text, parsed: false, to: &pieces) }
        let content = turns.trim ? text.trimmingCharacters(in: .whitespacesAndNewlines) : text
        var rest = Substring(content)
        while let (range, found) = first(of: model.special, in: rest) {
            add(String(rest[..<range.lowerBound]), parsed: true, to: &pieces)
            pieces.append(Piece(text: found, parsed: false))
            rest = rest[range.upperBound...]
        }
        add(String(rest), parsed: true, to: &pieces)
    }

    /// The earliest of the texts, the longest where several begin there.
    private static func first(of texts: [String], in text: Substring) -> (Range<Substring.Index>, String)? {
        texts.compactMap { each in text.range(of: each).map { ($0, each) } }
            .min { ($0.0.lowerBound, $1.1.count) < ($1.0.lowerBound, $0.1.count) }
    }

    /// Text is tokenized together with what stands beside it, as in one string.
    private static func add(_ text: String, parsed: Bool, to pieces: inout [Piece]) {
        if text.isEmpty { return }
        if let last = pieces.last, last.parsed == parsed {
            pieces[pieces.count - 1].text += text
        } else {
            pieces.append(Piece(text: text, parsed: parsed))
        }
    }

    private static func strip(_ text: String, rules: [StripRule]) -> String {
        var result = text
        for rule in rules {
            let literal = NSRegularExpression.escapedPattern(for: rule.text)
            let template = NSRegularExpression.escapedTemplate(for: rule.text)
            if rule.right {
                result = result.replacingOccurrences(of: literal + "\\s+", with: template, options: .regularExpression)
            }
            if rule.left {
                result = result.replacingOccurrences(of: "\\s+" + literal, with: template, options: .regularExpression)
            }
        }
        return result
    }
}
