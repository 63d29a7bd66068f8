package dev.edge.core;

import java.nio.ByteBuffer;

/**
 * The functions of native/*.c. All text is UTF-8 bytes: JNI's own strings are not. Memory that cannot be had is an
 * OutOfMemoryError. No two calls for one model may run at the same time: Engine sees to that.
 */
final class Llama {
    /** Told how much of a model is read. */
    interface Progress {
        /** fraction: 0 to 1; false stops. */
        boolean on(double fraction);
    }

    static {
        System.loadLibrary("edge_llama");
    }

    private Llama() {}

    /** Opens llama.cpp's library. 0; 1 when it cannot be loaded; 2 when it lacks a function. */
    static native int link(byte[] library);

    /** llama.cpp's warnings and errors since the last load. */
    static native byte[] log();

    /** A handle; 0 when llama.cpp refuses or `flag` (direct, one int, 1: stop) was set. */
    static native long load(byte[] path, ByteBuffer flag, Progress progress);

    static native void free(long model);

    /** Whether it has a vocabulary and gives logits of it token by token. */
    static native boolean speaks(long model);

    static native boolean context(long model, int tokens, int threads, int batch);

    static native byte[] metadata(long model, byte[] key);

    static native int trainedContext(long model);

    static native int bos(long model);

    static native int[] tokens(long model, boolean ends);

    static native int[] tokenize(long model, byte[] text, boolean special);

    static native byte[] piece(long model, int token, boolean special);

    static native int rewind(long model, int position);

    static native int decode(long model, int[] tokens, int from, int count);

    /** After the last token; null when there are none. */
    static native float[] logits(long model);

    static native void sampler(long model, float temperature, int topK, float topP, float minP, int seed);

    /** -1 when there are no logits to choose from. */
    static native int sample(long model, int[] seen, float penalty);

    static native byte[] render(byte[] template, byte[][] contents, boolean system);
}
