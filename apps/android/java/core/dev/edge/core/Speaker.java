package dev.edge.core;

import java.io.File;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/** A loaded model and how it wants to be talked to: from a conversation to a prompt to an answer. */
final class Speaker {
    /** Takes whole characters of an answer. */
    interface Listener {
        void piece(String text);

        void trimmed(int messages);
    }

    final ModelInfo model;
    final Engine engine;
    private final Turns turns;
    private final Words words;
    private int dropped;

    /** Failure: what Engine.load gives. */
    Speaker(ModelInfo model, File file, int context, int threads, Cancel cancel, Llama.Progress progress)
            throws Failure {
        this.model = model;
        this.engine = Engine.load(file, context, threads, cancel, progress);
        Turns found = null;
        Words splitter = null;
        try {
            String template = engine.metadata("tokenizer.chat_template");
            found = !model.bare() ? model.turns() : template == null ? null : Turns.known(template);
            splitter = new Words(engine, engine.specialTexts(model.stop()));
        } finally {
            if (splitter == null) {
                engine.close();
            }
        }
        this.turns = found;
        this.words = splitter;
    }

    boolean plain() {
        return turns == null;
    }

    /** A new conversation: nothing is left away yet. */
    void restart() {
        dropped = 0;
    }

    /**
     * Answers `question` after `before` (questions and answers in turn). Failure too_long when it does not fit alone;
     * engine.
     */
    Engine.Run answer(List<String> before, String question, Settings settings, int seed, final Listener listener)
            throws Failure {
        int[] prompt = fit(before, question, settings, listener);
        final TextStream stream = new TextStream();
        final boolean[] first = {!plain()};
        Engine.Run run =
                engine.generate(
                        prompt,
                        settings,
                        seed,
                        new Engine.Sink() {
                            @Override
                            public boolean bytes(byte[] piece) {
                                say(stream.feed(piece), first, listener);
                                return true;
                            }
                        });
        return run;
    }

    /** SentencePiece puts a space before a first word; a chat answer starts without it. */
    private static void say(String text, boolean[] first, Listener listener) {
        String clean = first[0] && text.startsWith(" ") ? text.substring(1) : text;
        if (!text.isEmpty()) {
            first[0] = false;
        }
        if (!clean.isEmpty()) {
            listener.piece(clean);
        }
    }

    /** The oldest questions go, with their answers, until there is room for an answer. */
    private int[] fit(List<String> before, String question, Settings settings, Listener listener) throws Failure {
        int room = Math.min(settings.integer("max_tokens"), engine.context / 4);
        int from = Math.min(dropped, before.size());
        int[] ids = prompt(before.subList(from, before.size()), question, settings);
        while (ids.length + room > engine.context && from < before.size()) {
            from += 2;
            ids = prompt(before.subList(from, before.size()), question, settings);
        }
        if (ids.length >= engine.context) {
            throw new Failure(
                    "too_long",
                    "the message takes " + ids.length + " tokens, the context holds " + engine.context,
                    "send a shorter message, or set a longer context");
        }
        if (from > dropped) {
            listener.trimmed(from - dropped);
            dropped = from;
        }
        return ids;
    }

    private int[] prompt(List<String> before, String question, Settings settings) throws Failure {
        List<String> messages = new ArrayList<>(before);
        messages.add(question);
        if (turns != null) {
            turns.render(settings.system(), messages, words);
            return words.take();
        }
        StringBuilder text = new StringBuilder(settings.system());
        for (String message : messages) {
            text.append(text.length() == 0 ? "" : "\n").append(message);
        }
        words.content(text.toString());
        return words.take();
    }

    static Map<String, Object> numbers(Engine.Run run) {
        int read = run.promptTokens - run.cachedTokens;
        return Json.object(
                "prompt_tokens", run.promptTokens,
                "cached_tokens", run.cachedTokens,
                "new_tokens", run.newTokens,
                "prefill_ms", Math.round(run.prefillSeconds * 1e3),
                "decode_ms", Math.round(run.decodeSeconds * 1e3),
                "prefill_per_second", perSecond(read, run.prefillSeconds),
                "decode_per_second", perSecond(run.newTokens, run.decodeSeconds),
                "context_used", run.promptTokens + run.newTokens);
    }

    private static double perSecond(int tokens, double seconds) {
        return seconds > 0 ? Math.round(tokens / seconds * 10) / 10.0 : 0;
    }
}
