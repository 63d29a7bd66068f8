package dev.edge.core;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.Collections;
import java.util.Comparator;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * Text to tokens as edge.chat.prompt and edge.runtimes.gguf_vocabulary do it: a special token's text inside a message
 * stays text; special tokens swallow the white space that the file's edge.tokenizer.strip says.
 */
final class Words implements Turns.Parts {
    static final int LONGEST = 8192;

    private static final Set<String> LOOPS =
            new HashSet<>(
                    Arrays.asList(
                            "gpt-2", "smollm", "dbrx", "llama-bpe", "qwen2", "phi-2", "llama3", "smaug-bpe", "starcoder"));

    private final Engine engine;
    private final Pattern special;
    private final boolean loops;
    private final List<List<?>> rules = new ArrayList<>();
    private final StringBuilder pending = new StringBuilder();
    private final List<int[]> found = new ArrayList<>();
    private Failure failure;

    /** specialTexts: of Engine. */
    Words(Engine engine, Set<String> specialTexts) throws Failure {
        this.engine = engine;
        this.special = specialTexts.isEmpty() ? null : Pattern.compile(anyOf(specialTexts));
        this.loops =
                !"gpt2".equals(engine.metadata("tokenizer.ggml.model"))
                        || LOOPS.contains(String.valueOf(engine.metadata("tokenizer.ggml.pre")));
        String strip = engine.metadata("edge.tokenizer.strip");
        if (strip != null) {
            rules.addAll(rules(strip));
        }
    }

    /** [[text, only in a template, to its left, to its right], ..]. Failure file_damaged. */
    private static List<List<?>> rules(String strip) throws Failure {
        List<List<?>> rules = new ArrayList<>();
        try {
            for (Object rule : (List<?>) Json.parse(strip)) {
                List<?> fields = (List<?>) rule;
                if (fields.size() != 4 || !(fields.get(0) instanceof String)) {
                    throw new IllegalArgumentException(String.valueOf(fields));
                }
                rules.add(fields);
            }
        } catch (IllegalArgumentException | ClassCastException error) {
            throw new Failure(
                    "file_damaged", "edge.tokenizer.strip: " + error.getMessage(), "copy the file to the device again");
        }
        return rules;
    }

    private static String anyOf(Collection<String> texts) {
        List<String> sorted = new ArrayList<>(texts);
        Collections.sort(
                sorted,
                new Comparator<String>() {
                    @Override
                    public int compare(String one, String other) {
                        return other.length() - one.length();
                    }
                });
        StringBuilder any = new StringBuilder();
        for (String text : sorted) {
            any.append(any.length() == 0 ? "" : "|").append(Pattern.quote(text));
        }
        return any.toString();
    }

    @Override
    public void template(String text) {
        pending.append(text);
    }

    @Override
    public void content(String text) {
        int from = 0;
        for (Matcher match = matcher(text); match != null && match.find(); from = match.end()) {
            pending.append(text, from, match.start());
            flush();
            encode(match.group(), false);
        }
        pending.append(text, from, text.length());
    }

    private Matcher matcher(String text) {
        return special == null ? null : special.matcher(text);
    }

    private void flush() {
        if (pending.length() > 0) {
            encode(pending.toString(), true);
            pending.setLength(0);
        }
    }

    private void encode(String text, boolean parse) {
        String stripped = strip(text, parse);
        try {
            if (!loops && Runs.longest(stripped) > LONGEST) {
                throw new Failure(
                        "too_long",
                        "the text runs on for over " + LONGEST + " characters without a break",
                        "break the text up");
            }
            found.add(engine.encode(stripped, parse));
        } catch (Failure caught) {
            failure = failure == null ? caught : failure;
        }
    }

    /** All tokens so far, BOS first where the file wants it; forgets them. */
    int[] take() throws Failure {
        flush();
        int bos = engine.bos();
        List<int[]> all = new ArrayList<>(found);
        found.clear();
        Failure told = failure;
        failure = null;
        if (told != null) {
            throw told;
        }
        boolean starts = bos < 0 || !all.isEmpty() && all.get(0).length > 0 && all.get(0)[0] == bos;
        if (!starts) {
            all.add(0, new int[] {bos});
        }
        int size = 0;
        for (int[] part : all) {
            size += part.length;
        }
        int[] ids = new int[size];
        int at = 0;
        for (int[] part : all) {
            System.arraycopy(part, 0, ids, at, part.length);
            at += part.length;
        }
        return ids;
    }

    private String strip(String text, boolean parse) {
        List<String> left = new ArrayList<>();
        List<String> right = new ArrayList<>();
        for (List<?> rule : rules) {
            boolean active = parse || !Boolean.TRUE.equals(rule.get(1));
            if (active && Boolean.TRUE.equals(rule.get(2))) {
                left.add((String) rule.get(0));
            }
            if (active && Boolean.TRUE.equals(rule.get(3))) {
                right.add((String) rule.get(0));
            }
        }
        String out = right.isEmpty() ? text : text.replaceAll("(" + anyOf(right) + ")" + Runs.SPACE + "+", "$1");
        return left.isEmpty() ? out : out.replaceAll("(?<!" + Runs.SPACE + ")" + Runs.SPACE + "+(" + anyOf(left) + ")", "$1");
    }
}
