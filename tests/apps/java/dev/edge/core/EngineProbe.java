package dev.edge.core;

import java.io.File;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;

/** For tests: the engine used by several threads at once. Arguments: library, model. Prints one JSON object. */
public final class EngineProbe {
    private static final int LONG = 100000;

    private final Cancel cancel = new Cancel();
    private final Engine engine;
    private final int[] prompt;

    private EngineProbe(File model) throws Failure {
        engine = Engine.load(model, 512, 1, cancel, new Llama.Progress() {
            @Override
            public boolean on(double fraction) {
                return true;
            }
        });
        prompt = engine.encode("a question of a few tokens", true);
    }

    public static void main(String[] arguments) throws Exception {
        Llama.link(arguments[0].getBytes(Engine.UTF_8));
        File model = new File(arguments[1]);
        System.out.println(
                Json.write(
                        Json.object(
                                "alone", new EngineProbe(model).tokens(6),
                                "together", new EngineProbe(model).together(),
                                "destroyed", new EngineProbe(model).destroyed(),
                                "prefill", new EngineProbe(model).prefillCancelled(),
                                "emoji", emoji())));
    }

    private static Settings settings(int tokens) throws Failure {
        return Settings.defaults().with(Json.object("max_tokens", tokens));
    }

    private String tokens(int count) throws Failure {
        final StringBuilder text = new StringBuilder();
        engine.generate(prompt, settings(count), 0, new Engine.Sink() {
            @Override
            public boolean bytes(byte[] piece) {
                text.append(java.util.Arrays.toString(piece));
                return true;
            }
        });
        return text.toString();
    }

    /** Two threads ask for the same answer: each must get it whole. */
    private List<String> together() throws InterruptedException {
        final List<String> answers = Collections.synchronizedList(new ArrayList<String>());
        List<Thread> threads = new ArrayList<>();
        for (int i = 0; i < 2; i++) {
            Thread thread = new Thread() {
                @Override
                public void run() {
                    try {
                        answers.add(tokens(6));
                    } catch (Failure failure) {
                        answers.add(failure.code);
                    }
                }
            };
            threads.add(thread);
            thread.start();
        }
        for (Thread thread : threads) {
            thread.join();
        }
        return answers;
    }

    /** Destroyed in the middle of an answer: the answer is stopped first, and a later one is refused. */
    private Map<String, Object> destroyed() throws Exception {
        final String[] reason = {null};
        final Thread[] closer = {null};
        Engine.Sink sink = new Engine.Sink() {
            @Override
            public boolean bytes(byte[] piece) {
                if (closer[0] == null) {
                    closer[0] = new Thread() {
                        @Override
                        public void run() {
                            cancel.set();
                            engine.close();
                        }
                    };
                    closer[0].start();
                }
                return true;
            }
        };
        reason[0] = engine.generate(prompt, settings(LONG), 0, sink).reason;
        closer[0].join();
        String later = null;
        try {
            tokens(1);
        } catch (Failure failure) {
            later = failure.code;
        }
        engine.close();
        return Json.object("reason", reason[0], "later", later);
    }

    /** A cancel while the prompt is read; the same engine then answers as a new one. */
    private Map<String, Object> prefillCancelled() throws Exception {
        int[] many = new int[500];
        java.util.Arrays.fill(many, prompt[0]);
        Thread canceller = new Thread() {
            @Override
            public void run() {
                try {
                    Thread.sleep(5);
                } catch (InterruptedException ended) {
                    return;
                }
                cancel.set();
            }
        };
        canceller.start();
        Engine.Run run = engine.generate(many, settings(LONG), 0, new Engine.Sink() {
            @Override
            public boolean bytes(byte[] piece) {
                return true;
            }
        });
        canceller.join();
        cancel.clear();
        return Json.object("reason", run.reason, "new", run.newTokens, "after", tokens(6));
    }

    /** Every way to cut an emoji and a word with an accent into tokens of bytes. */
    private static List<String> emoji() {
        byte[] bytes = "é👍🏽é".getBytes(Engine.UTF_8);
        List<String> wrong = new ArrayList<>();
        for (int size = 1; size <= bytes.length; size++) {
            TextStream stream = new TextStream();
            StringBuilder text = new StringBuilder();
            for (int at = 0; at < bytes.length; at += size) {
                String piece = stream.feed(java.util.Arrays.copyOfRange(bytes, at, Math.min(bytes.length, at + size)));
                if (!piece.isEmpty() && Character.isHighSurrogate(piece.charAt(piece.length() - 1))) {
                    wrong.add("half a character at size " + size);
                }
                text.append(piece);
            }
            if (!text.toString().equals("é👍🏽é")) {
                wrong.add(text.toString());
            }
        }
        if (!new TextStream().feed(new byte[] {'a', (byte) 0xf0, (byte) 0x9f}).equals("a")) {
            wrong.add("an unfinished character at the end");
        }
        return wrong;
    }
}
