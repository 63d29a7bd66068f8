package dev.edge.core;

import java.util.Arrays;
import java.util.HashSet;
import java.util.Set;

/** Which tokens llama.cpp's KV cache holds; Engine's lock guards it. */
final class Cache {
    static final int BATCH = 256;
    private static final int REPEAT_WINDOW = 64;

    private final Handle handle;
    private final Cancel cancel;
    private int[] tokens = new int[0];

    Cache(Handle handle, Cancel cancel) {
        this.handle = handle;
        this.cancel = cancel;
    }

    int length() {
        return tokens.length;
    }

    /** Keeps what is the start of `prompt` and forgets the rest; how much is kept: never all of it. */
    int keep(int[] prompt) throws Failure {
        int same = 0;
        while (same < tokens.length && same < prompt.length - 1 && tokens[same] == prompt[same]) {
            same++;
        }
        int kept = Llama.rewind(handle.get(), same);
        tokens = Arrays.copyOf(prompt, kept);
        return kept;
    }

    /** Runs all[from..] behind what is held; false when it was cancelled between or inside the pieces. Failure engine. */
    boolean append(int[] all, int from) throws Failure {
        for (int start = from; start < all.length; start += BATCH) {
            int count = Math.min(BATCH, all.length - start);
            int result = cancel.isSet() ? 2 : Llama.decode(handle.get(), all, start, count);
            if (result == 2) {
                return false;
            }
            if (result != 0) {
                tokens = new int[0];
                throw Engine.failed(result);
            }
            tokens = Arrays.copyOf(all, start + count);
        }
        return true;
    }

    boolean append(int token) throws Failure {
        int[] all = Arrays.copyOf(tokens, tokens.length + 1);
        all[tokens.length] = token;
        return append(all, tokens.length);
    }

    /** The last tokens, each once. */
    int[] recent() {
        Set<Integer> seen = new HashSet<>();
        for (int i = Math.max(0, tokens.length - REPEAT_WINDOW); i < tokens.length; i++) {
            seen.add(tokens[i]);
        }
        int[] distinct = new int[seen.size()];
        int count = 0;
        for (int token : seen) {
            distinct[count++] = token;
        }
        return distinct;
    }
}
