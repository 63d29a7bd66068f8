package dev.edge.core;

import java.io.BufferedInputStream;
import java.io.DataInputStream;
import java.io.EOFException;
import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.util.HashMap;
import java.util.Map;

/** The metadata of a GGUF file (ggml-org/ggml, docs/gguf.md): whole numbers and texts; arrays are passed over. */
final class Gguf {
    private static final int[] WIDTHS = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    private static final int TEXT = 8;
    private static final int ARRAY = 9;
    private static final int FLOAT = 6;
    private static final int DOUBLE = 12;
    /** Items of an array, and bytes of all that is kept: a vocabulary has some hundred thousand, in arrays. */
    private static final long MOST = 1 << 24;
    /** What an entry takes beside its text. */
    private static final int ENTRY = 64;

    private final DataInputStream in;
    private final byte[] scratch = new byte[8192];
    private long kept;

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
        long count = number(8);
        Map<String, Object> map = new HashMap<>();
        for (long i = 0; i != count; i++) {
            String key = text();
            Object value = value((int) number(4));
            if (value != null) {
                map.put(key, value);
            }
        }
        return map;
    }

    /** A size that the file claims, at most MOST in all: what is kept of a damaged header stays small. */
    private int bounded(long size) throws IOException {
        if (size < 0 || size > MOST - kept) {
            throw new IOException("its header claims " + size + " bytes");
        }
        return (int) size;
    }

    private long number(int width) throws IOException {
        long value = 0;
        for (int i = 0; i < width; i++) {
            value |= (long) in.readUnsignedByte() << (8 * i);
        }
        return value;
    }

    private String text() throws IOException {
        byte[] bytes = new byte[bounded(number(8))];
        in.readFully(bytes);
        kept += ENTRY + bytes.length;
        return new String(bytes, Engine.UTF_8);
    }

    /** By reading: InputStream.skip goes past the end of a file. */
    private void skip(long bytes) throws IOException {
        for (long left = bytes; left > 0; left -= scratch.length) {
            in.readFully(scratch, 0, (int) Math.min(left, scratch.length));
        }
    }

    /** Arrays of arrays are refused, as llama.cpp refuses them: they would nest as deep as the file is long. */
    private void skipArray() throws IOException {
        int type = (int) number(4);
        long count = bounded(number(8));
        if (type == TEXT) {
            for (long i = 0; i < count; i++) {
                skip(bounded(number(8)));
            }
        } else {
            skip(count * width(type));
        }
    }

    private static int width(int type) throws IOException {
        if (type < 0 || type >= WIDTHS.length || WIDTHS[type] == 0) {
            throw new IOException("a value of type " + type);
        }
        return WIDTHS[type];
    }

    private Object value(int type) throws IOException {
        if (type == TEXT) {
            return text();
        }
        if (type == ARRAY) {
            skipArray();
            return null;
        }
        long number = number(width(type));
        return type == FLOAT || type == DOUBLE ? null : (Object) number;
    }
}
