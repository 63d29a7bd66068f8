package dev.edge.core;

import java.nio.ByteBuffer;
import java.nio.CharBuffer;
import java.nio.charset.Charset;
import java.nio.charset.CharsetDecoder;
import java.nio.charset.CodingErrorAction;

/**
 * From the bytes of tokens to whole characters: what may still become a character is held back, and left out when the
 * answer ends in the middle of it.
 */
final class TextStream {
    private final CharsetDecoder decoder =
            Charset.forName("UTF-8")
                    .newDecoder()
                    .onMalformedInput(CodingErrorAction.REPLACE)
                    .onUnmappableCharacter(CodingErrorAction.REPLACE);
    private byte[] held = new byte[0];

    /** Text that is now certain. Bytes that are no UTF-8 become U+FFFD. */
    String feed(byte[] bytes) {
        ByteBuffer in = ByteBuffer.allocate(held.length + bytes.length);
        in.put(held).put(bytes).flip();
        CharBuffer out = CharBuffer.allocate(in.remaining() + 1);
        decoder.decode(in, out, false);
        held = new byte[in.remaining()];
        in.get(held);
        out.flip();
        return out.toString();
    }
}
