package dev.edge.core;

import java.io.Closeable;
import java.io.File;
import java.nio.charset.Charset;
import java.util.HashSet;
import java.util.Set;

/**
 * One loaded model with one conversation in its KV cache. Every method holds the lock for as long as it runs, so that
 * an answer, a second answer and `close` come one after the other; `Cancel` makes the one that runs end at once.
 */
public final class Engine implements Closeable {
    /** Takes the bytes of one token; false ends the answer. */
    public interface Sink {
        boolean bytes(byte[] piece);
    }

    /** How an answer went. Times in seconds. */
    public static final class Run {
        public String reason = "";
        public int promptTokens;
        public int cachedTokens;
        public int newTokens;
        public double prefillSeconds;
        public double decodeSeconds;
    }

    static final Charset UTF_8 = Charset.forName("UTF-8");

    public final int context;

    private final Handle handle;
    private final Cancel cancel;
    private final Cache cache;
    private final Set<Integer> ends = new HashSet<>();

    private Engine(Handle handle, Cancel cancel) {
        this.handle = handle;
        this.context = handle.context;
        this.cancel = cancel;
        this.cache = new Cache(handle, cancel);
    }

    /** Maps the file and makes a context of at most `context` tokens. Failure: see Handle.open. */
    static Engine load(File file, int context, int threads, Cancel cancel, Llama.Progress progress) throws Failure {
        Handle handle = Handle.open(file, context, threads, Cache.BATCH, cancel, progress);
        Engine engine = new Engine(handle, cancel);
        boolean whole = false;
        try {
            for (int token : Llama.tokens(handle.get(), true)) {
                engine.ends.add(token);
            }
            whole = true;
            return engine;
        } finally {
            if (!whole) {
                handle.free();
            }
        }
    }

    static Failure stopped() {
        return new Failure("stopped", "loading was stopped", "choose a model");
    }

    static Failure failed(int result) {
        return new Failure("engine", "llama.cpp gave " + result + " while answering", "load the model again");
    }

    /** Tokens without BOS; special: the texts of special tokens become those tokens. */
    public synchronized int[] encode(String text, boolean special) throws Failure {
        int[] tokens = Llama.tokenize(handle.get(), text.getBytes(UTF_8), special);
        if (tokens == null) {
            throw new Failure("too_long", "the text cannot be split into tokens", "send a shorter text");
        }
        return tokens;
    }

    /** A value of the file's metadata; null when it is not there. */
    public synchronized String metadata(String key) throws Failure {
        byte[] value = Llama.metadata(handle.get(), key.getBytes(UTF_8));
        return value == null ? null : new String(value, UTF_8);
    }

    /** The token that prompts start with; -1: none. */
    public synchronized int bos() throws Failure {
        return Llama.bos(handle.get());
    }

    /** The texts that `encode(special)` takes for special tokens. An answer also ends at those of `stop`. */
    public synchronized Set<String> specialTexts(Set<String> stop) throws Failure {
        Set<String> texts = new HashSet<>();
        for (int token : Llama.tokens(handle.get(), false)) {
            String text = new String(Llama.piece(handle.get(), token, true), UTF_8);
            if (!text.isEmpty()) {
                texts.add(text);
            }
            if (stop.contains(text)) {
                ends.add(token);
            }
        }
        return texts;
    }

    /**
     * Answers a prompt. What the cache holds of its start is not computed again. Failure: bad_request for a prompt of no
     * tokens; engine, and the model is then good for nothing but `close`.
     */
    public synchronized Run generate(int[] prompt, Settings settings, int seed, Sink sink) throws Failure {
        long model = handle.get();
        if (prompt.length == 0) {
            throw new Failure("bad_request", "the message has no words to answer", "ask something");
        }
        Run run = new Run();
        run.promptTokens = prompt.length;
        long began = System.nanoTime();
        run.cachedTokens = cache.keep(prompt);
        boolean read = cache.append(prompt, run.cachedTokens);
        long readTime = System.nanoTime();
        run.prefillSeconds = (readTime - began) / 1e9;
        if (read) {
            Llama.sampler(
                    model,
                    (float) settings.number("temperature"),
                    settings.integer("top_k"),
                    (float) settings.number("top_p"),
                    (float) settings.number("min_p"),
                    seed);
            answer(model, run, settings, sink);
        } else {
            run.reason = "stopped";
        }
        run.decodeSeconds = (System.nanoTime() - readTime) / 1e9;
        return run;
    }

    private void answer(long model, Run run, Settings settings, Sink sink) throws Failure {
        float penalty = (float) settings.number("repeat_penalty");
        while (run.reason.isEmpty()) {
            int token = Llama.sample(model, penalty == 1 ? new int[0] : cache.recent(), penalty);
            if (token < 0) {
                throw failed(token);
            }
            run.newTokens++;
            if (ends.contains(token)) {
                run.reason = "end";
            } else if (!sink.bytes(Llama.piece(model, token, false)) || cancel.isSet()) {
                run.reason = "stopped";
            } else if (run.newTokens >= settings.integer("max_tokens")) {
                run.reason = "length";
            } else if (cache.length() >= context) {
                run.reason = "context";
            } else {
                run.reason = cache.append(token) ? "" : "stopped";
            }
        }
    }

    /** Waits for the answer that runs (`Cancel` ends it) and frees the model; any later call is a Failure no_model. */
    @Override
    public synchronized void close() {
        handle.free();
    }
}
