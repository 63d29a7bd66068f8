package dev.edge.core;

import java.io.BufferedInputStream;
import java.io.DataInputStream;
import java.io.EOFException;
import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.util.HashMap;
import java.util.Map;

/** The metadata of a GGUF file (ggml-org/ggml, docs/gguf.md): numbers and texts, arrays left out. */
final class Gguf {
    private static final int[] WIDTHS = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    private static final int TEXT = 8;
    private static final int ARRAY = 9;
    private static final long MOST = 1 << 24;

    private final DataInputStream in;

    private Gguf(DataInputStream in) {
        this.in = in;
    }

    /** Failure file_damaged for what is no GGUF of version 2 or 3, or is cut off in its header. */
    static Map<String, Object> metadata(File file) throws Failure {
        try (DataInputStream in = new DataInputStream(new BufferedInputStream(new FileInputStream(file), 1 << 16))) {
            return new Gguf(in).read();
        } catch (EOFException error) {
            throw damaged(file, "it is cut off");
        } catch (IOException error) {
            throw damaged(file, error.getMessage());
        }
    }

    private static Failure damaged(File file, String why) {
        return new Failure(
                "file_damaged", file.getName() + " is no sound GGUF: " + why, "copy the file to the device again");
    }

    private Map<String, Object> read() throws IOException {
        if (in.readInt() != 0x47475546) {
            throw new IOException("it starts with other bytes");
        }
        long version = number(4);
        if (version != 2 && version != 3) {
            throw new IOException("version " + version);
        }
        number(8);
        long count = bounded(number(8));
        Map<String, Object> map = new HashMap<>();
        for (long i = 0; i < count; i++) {
            String key = text();
            Object value = value((int) number(4));
            if (value != null) {
                map.put(key, value);
            }
        }
        return map;
    }

    private static long bounded(long count) throws IOException {
        if (count < 0 || count > MOST) {
            throw new IOException("a count of " + count);
        }
        return count;
    }

    private long number(int width) throws IOException {
        long value = 0;
        for (int i = 0; i < width; i++) {
            value |= (long) in.readUnsignedByte() << (8 * i);
        }
        return value;
    }

    private String text() throws IOException {
        byte[] bytes = new byte[(int) bounded(number(8))];
        in.readFully(bytes);
        return new String(bytes, Engine.UTF_8);
    }

    private Object value(int type) throws IOException {
        if (type == TEXT) {
            return text();
        }
        if (type == ARRAY) {
            int inner = (int) number(4);
            for (long i = bounded(number(8)); i > 0; i--) {
                value(inner);
            }
            return null;
        }
        if (type < 0 || type >= WIDTHS.length) {
            throw new IOException("a value of type " + type);
        }
        return number(WIDTHS[type]);
    }
}
