package dev.edge.core;

import java.io.File;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;
import java.util.Map;

/**
 * For tests: the C code called as Engine never calls it, and where llama.cpp refuses. Arguments: library, model. Prints
 * one JSON object; a fault ends the process.
 */
public final class LlamaProbe {
    private static final Llama.Progress ON = new Llama.Progress() {
        @Override
        public boolean on(double fraction) {
            return true;
        }
    };

    private LlamaProbe() {}

    public static void main(String[] arguments) {
        byte[] path = utf8(arguments[1]);
        Map<String, Object> links =
                Json.object(
                        "missing", Llama.link(utf8("/nowhere/libllama.so")),
                        "other", Llama.link(utf8(new File(arguments[0]).getParent() + "/libggml-base.so")),
                        "right", Llama.link(utf8(arguments[0])));
        System.out.println(
                Json.write(
                        Json.object(
                                "links", links,
                                "loads", loads(path),
                                "text", text(path),
                                "answers", answers(path),
                                "templates", templates())));
    }

    private static byte[] utf8(String text) {
        return text.getBytes(Engine.UTF_8);
    }

    private static ByteBuffer flag(int value) {
        ByteBuffer flag = ByteBuffer.allocateDirect(4).order(ByteOrder.nativeOrder());
        flag.putInt(0, value);
        return flag;
    }

    private static Map<String, Object> loads(byte[] path) {
        Llama.Progress no = new Llama.Progress() {
            @Override
            public boolean on(double fraction) {
                return false;
            }
        };
        Llama.Progress thrown = new Llama.Progress() {
            @Override
            public boolean on(double fraction) {
                throw new IllegalStateException("thrown");
            }
        };
        String exception = "none";
        try {
            Llama.load(path, flag(0), thrown);
        } catch (IllegalStateException error) {
            exception = error.getMessage();
        }
        for (int i = 0; i < 20; i++) {
            long model = Llama.load(path, flag(0), ON);
            Llama.context(model, 64 + i, 1, 64);
            Llama.sampler(model, 1, 5, 0.5f, 0.1f, i);
            Llama.sampler(model, 0, 0, 1, 0, i);
            Llama.free(model);
        }
        return Json.object(
                "missing", Llama.load(utf8("/nowhere.gguf"), flag(0), ON),
                "refused", Llama.load(path, flag(0), no),
                "cancelled", Llama.load(path, flag(1), ON),
                "not_direct", Llama.load(path, ByteBuffer.allocate(4), ON),
                "exception", exception);
    }

    private static Map<String, Object> text(byte[] path) {
        long model = Llama.load(path, flag(0), ON);
        char[] spaces = new char[500];
        Arrays.fill(spaces, ' ');
        int[] many = Llama.tokenize(model, utf8("\u0001\u2003" + new String(spaces)), true);
        byte[] longest = new byte[0];
        for (int token : Llama.tokens(model, false)) {
            byte[] piece = Llama.piece(model, token, true);
            longest = piece.length > longest.length ? piece : longest;
        }
        Map<String, Object> found =
                Json.object(
                        "nothing", Llama.tokenize(model, new byte[0], true).length,
                        "many", many.length > 0,
                        "broken", Llama.tokenize(model, new byte[] {(byte) 0xf0, 0, (byte) 0xff}, false).length > 0,
                        "longest", new String(longest, Engine.UTF_8),
                        "missing", Llama.metadata(model, utf8("no.such.key")),
                        "array", Llama.metadata(model, utf8("tokenizer.ggml.tokens")),
                        "architecture", new String(Llama.metadata(model, utf8("general.architecture")), Engine.UTF_8));
        Llama.free(model);
        return found;
    }

    private static Map<String, Object> answers(byte[] path) {
        ByteBuffer flag = flag(0);
        long model = Llama.load(path, flag, ON);
        Llama.context(model, 64, 1, 64);
        Llama.sampler(model, 0, 0, 1, 0, 0);
        int early = Llama.sample(model, new int[0], 1);
        boolean logits = Llama.logits(model) != null;
        String beyond = "none";
        try {
            Llama.decode(model, new int[] {1, 2, 3}, 1, 5);
        } catch (ArrayIndexOutOfBoundsException error) {
            beyond = "index";
        }
        int none = Llama.decode(model, new int[0], 0, 0);
        int negative = Llama.decode(model, new int[] {1}, 0, -1);
        int large = Llama.decode(model, new int[300], 0, 300);
        int unknown = Llama.decode(model, new int[] {1 << 30}, 0, 1);
        int good = Llama.decode(model, new int[] {1, 2, 3}, 0, 3);
        int penalised = Llama.sample(model, new int[] {1, 2, 3}, 2);
        flag.putInt(0, 1);
        int cancelled = Llama.decode(model, new int[] {4}, 0, 1);
        flag.putInt(0, 0);
        int again = Llama.decode(model, new int[] {4}, 0, 1);
        int kept = Llama.rewind(model, 2);
        int full = 0;
        for (int i = 0; i < 10 && full == 0; i++) {
            full = Llama.decode(model, new int[64], 0, 64);
        }
        Llama.free(model);
        return Json.object(
                "early", early, "logits", logits, "beyond", beyond, "none", none, "negative", negative,
                "large", large, "unknown", unknown, "good", good, "penalised", penalised >= 0, "cancelled", cancelled,
                "again", again, "kept", kept, "full", full);
    }

    private static Map<String, Object> templates() {
        byte[] chatml = utf8("{% for m in messages %}<|im_start|>{% endfor %}");
        char[] letters = new char[5000];
        Arrays.fill(letters, 'a');
        byte[] large = utf8(new String(letters));
        return Json.object(
                "known", Llama.render(chatml, new byte[][] {utf8("q")}, false) != null,
                "unknown", Llama.render(utf8("nothing"), new byte[][] {utf8("q")}, false) != null,
                "large", Llama.render(chatml, new byte[][] {large}, false) != null,
                "nine", Llama.render(chatml, new byte[9][1], false) != null);
    }
}
