/// Text from bytes that come token by token: a character may be spread over several.
struct Characters {
    private var pending: [UInt8] = []

    /// What is whole by now. Bytes that are no UTF-8 become U+FFFD.
    mutating func add(_ bytes: [UInt8]) -> String {
        pending += bytes
        let whole = pending.count - unfinished()
        let text = String(decoding: pending[..<whole], as: UTF8.self)
        pending.removeFirst(whole)
        return text
    }

    /// How many bytes at the end begin a character that is not whole.
    private func unfinished() -> Int {
        for length in 1...3 where length <= pending.count {
            let byte = pending[pending.count - length]
            if byte & 0b1100_0000 == 0b1000_0000 { continue }
            let wanted = byte >= 0b1111_0000 ? 4 : byte >= 0b1110_0000 ? 3 : byte >= 0b1100_0000 ? 2 : 1
            return wanted > length ? length : 0
        }
        return 0
    }
}
