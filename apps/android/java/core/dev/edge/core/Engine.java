package dev.edge.core;

import java.io.Closeable;
import java.io.File;
import java.nio.charset.Charset;
import java.util.Arrays;
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

    private static final int BATCH = 256;
    private static final int REPEAT_WINDOW = 64;

    public final int context;

    private final Cancel cancel;
    private final Set<Integer> ends = new HashSet<>();
    private long model;
    private int[] cached = new int[0];

    private Engine(long model, int context, Cancel cancel) {
        this.model = model;
        this.context = context;
        this.cancel = cancel;
    }

    /**
     * Maps the file and makes a context of `context` tokens. Failure: file_damaged, not_supported, memory_engine, or
     * stopped when `cancel` was set meanwhile.
     */
    public static Engine load(File file, int context, int threads, Cancel cancel, Progress progress) throws Failure {
        long model = Llama.load(file.getPath().getBytes(UTF_8), cancel.flag, progress);
        if (model == 0 && cancel.isSet()) {
            throw new Failure("stopped", "loading was stopped", "choose a model");
        }
        if (model == 0) {
            throw refusal(file, new String(Llama.log(), UTF_8));
        }
        int length = Math.min(context, Llama.trainedContext(model));
        if (!Llama.context(model, length, threads, Math.min(BATCH, length))) {
            Llama.free(model);
            throw memory(length);
        }
        Engine engine = new Engine(model, length, cancel);
        for (int token : Llama.tokens(model, true)) {
            engine.ends.add(token);
        }
        return engine;
    }

    /** Told how much of a model is read; false stops. */
    public interface Progress extends Llama.Progress {}

    private static Failure memory(int context) {
        return new Failure(
                "memory_engine",
                "there is no memory for a context of " + context + " tokens",
                "close other apps, or set a shorter context");
    }

    private static Failure refusal(File file, String log) {
        String[] lines = log.trim().split("\n");
        String cause = lines[0].trim().isEmpty() ? "llama.cpp gives no reason" : lines[0].trim();
        if (log.contains("unknown model architecture") || log.contains("unknown pre-tokenizer")) {
            return new Failure("not_supported", file.getName() + ": " + cause, "update the app, or another model");
        }
        if (log.contains("allocate")) {
            return new Failure("memory_engine", file.getName() + ": " + cause, "close other apps, or a smaller model");
        }
        return new Failure("file_damaged", file.getName() + ": " + cause, "copy the file to the device again");
    }

    private long open() throws Failure {
        if (model == 0) {
            throw new Failure("no_model", "no model is loaded", "choose a model");
        }
        return model;
    }

    /** Tokens without BOS; special: the texts of special tokens become those tokens. */
    public synchronized int[] encode(String text, boolean special) throws Failure {
        int[] tokens = Llama.tokenize(open(), text.getBytes(UTF_8), special);
        if (tokens == null) {
            throw new Failure("too_long", "the text cannot be split into tokens", "send a shorter text");
        }
        return tokens;
    }

    /** A value of the file's metadata; null when it is not there. */
    public synchronized String metadata(String key) throws Failure {
        byte[] value = Llama.metadata(open(), key.getBytes(UTF_8));
        return value == null ? null : new String(value, UTF_8);
    }

    /** The token that prompts start with; -1: none. */
    public synchronized int bos() throws Failure {
        return Llama.bos(open());
    }

    /** The texts that `encode(special)` takes for special tokens. An answer also ends at those of `stop`. */
    public synchronized Set<String> specialTexts(Set<String> stop) throws Failure {
        Set<String> texts = new HashSet<>();
        for (int token : Llama.tokens(open(), false)) {
            String text = new String(Llama.piece(model, token, true), UTF_8);
            if (!text.isEmpty()) {
                texts.add(text);
            }
            if (stop.contains(text)) {
                ends.add(token);
            }
        }
        return texts;
    }

    /** Logits after the last token of the cache, for tests. */
    public synchronized float[] logits() throws Failure {
        return Llama.logits(open());
    }

    /**
     * Answers a prompt. What the cache holds of its start is not computed again. Failure: engine; the model is then
     * good for nothing but `close`.
     */
    public synchronized Run generate(int[] prompt, Settings settings, int seed, Sink sink) throws Failure {
        Run run = new Run();
        run.promptTokens = prompt.length;
        long began = System.nanoTime();
        run.cachedTokens = reuse(prompt);
        boolean read = append(prompt, run.cachedTokens);
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
            answer(run, settings, sink);
        } else {
            run.reason = "stopped";
        }
        run.decodeSeconds = (System.nanoTime() - readTime) / 1e9;
        return run;
    }

    private void answer(Run run, Settings settings, Sink sink) throws Failure {
        float penalty = (float) settings.number("repeat_penalty");
        while (run.reason.isEmpty()) {
            int token = Llama.sample(model, penalty == 1 ? new int[0] : recent(), penalty);
            run.newTokens++;
            if (ends.contains(token)) {
                run.reason = "end";
            } else if (!sink.bytes(Llama.piece(model, token, false)) || cancel.isSet()) {
                run.reason = "stopped";
            } else if (run.newTokens >= settings.integer("max_tokens")) {
                run.reason = "length";
            } else if (cached.length >= context) {
                run.reason = "context";
            } else {
                int from = cached.length;
                int[] more = Arrays.copyOf(cached, from + 1);
                more[from] = token;
                run.reason = append(more, from) ? "" : "stopped";
            }
        }
    }

    private int reuse(int[] prompt) throws Failure {
        open();
        int same = 0;
        while (same < cached.length && same < prompt.length - 1 && cached[same] == prompt[same]) {
            same++;
        }
        int kept = Llama.rewind(model, same);
        cached = Arrays.copyOf(prompt, kept);
        return kept;
    }

    /** Runs tokens[from..]; false when it was cancelled between or inside the pieces. */
    private boolean append(int[] tokens, int from) throws Failure {
        for (int start = from; start < tokens.length; start += BATCH) {
            int count = Math.min(BATCH, tokens.length - start);
            int result = cancel.isSet() ? 2 : Llama.decode(model, tokens, start, count);
            if (result == 2) {
                return false;
            }
            if (result != 0) {
                cached = new int[0];
                throw new Failure("engine", "llama.cpp gave " + result + " while answering", "load the model again");
            }
            cached = Arrays.copyOf(tokens, start + count);
        }
        return true;
    }

    private int[] recent() {
        Set<Integer> seen = new HashSet<>();
        for (int i = Math.max(0, cached.length - REPEAT_WINDOW); i < cached.length; i++) {
            seen.add(cached[i]);
        }
        int[] tokens = new int[seen.size()];
        int count = 0;
        for (int token : seen) {
            tokens[count++] = token;
        }
        return tokens;
    }

    /** Waits for the answer that runs (`Cancel` ends it) and frees the model; any later call is a Failure no_model. */
    @Override
    public synchronized void close() {
        if (model != 0) {
            Llama.free(model);
            model = 0;
        }
    }
}
