package dev.edge.core;

import java.nio.charset.Charset;
import java.util.List;
import java.util.Map;

/** The texts between the contents of messages: what is left of a chat template where no Jinja runs (PROTOCOL.md). */
public final class Turns {
    /** What Python's str.strip takes away. */
    private static final String SPACE =
            "[\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]+";
    private static final String MARK = "EDGE%dMARK";
    private static final Charset UTF_8 = Charset.forName("UTF-8");

    /** Takes the parts of a prompt one after the other. */
    interface Parts {
        void template(String text);

        void content(String text);
    }

    private final Map<String, Object> texts;

    private Turns(Map<String, Object> texts) {
        this.texts = texts;
    }

    /** Failure not_supported when a text is missing. */
    static Turns of(Map<String, Object> texts) throws Failure {
        for (String name : new String[] {"start_user", "user_assistant", "assistant_user", "reply"}) {
            if (!(texts.get(name) instanceof String)) {
                throw new Failure("not_supported", "model.json: turns has no " + name, "package the model again");
            }
        }
        return new Turns(texts);
    }

    /** What llama.cpp knows of a template; null when it does not know it. */
    static Turns known(String template) throws Failure {
        String[] user = split(template, false, 3);
        String[] system = split(template, true, 2);
        if (user == null) {
            return null;
        }
        boolean both = system != null;
        return of(
                Json.object(
                        "trim", false,
                        "start_user", user[0],
                        "user_assistant", user[1],
                        "assistant_user", user[2],
                        "reply", user[3],
                        "start_system", both ? system[0] : null,
                        "system_user", both ? system[1] : null));
    }

    private static String[] split(String template, boolean system, int count) {
        byte[][] contents = new byte[count][];
        for (int i = 0; i < count; i++) {
            contents[i] = String.format(MARK, i).getBytes(UTF_8);
        }
        byte[] rendered = Llama.render(template.getBytes(UTF_8), contents, system);
        String[] between = rendered == null ? null : new String(rendered, UTF_8).split("EDGE[0-9]MARK", -1);
        return between == null || between.length != count + 1 ? null : between;
    }

    boolean takesSystem() {
        return texts.get("system_user") instanceof String;
    }

    /** messages: contents of question, answer, .., question. system: "" for none. */
    void render(String system, List<String> messages, Parts parts) {
        boolean first = !system.isEmpty() && takesSystem();
        if (first) {
            parts.template(text("start_system"));
            parts.content(strip(system));
        }
        for (int i = 0; i < messages.size(); i++) {
            String before = i == 0 ? (first ? "system_user" : "start_user") : i % 2 == 1 ? "user_assistant" : "assistant_user";
            parts.template(text(before));
            parts.content(strip(messages.get(i)));
        }
        parts.template(text("reply"));
    }

    private String text(String name) {
        return (String) texts.get(name);
    }

    private String strip(String content) {
        return Boolean.TRUE.equals(texts.get("trim"))
                ? content.replaceFirst("^" + SPACE, "").replaceFirst(SPACE + "$", "")
                : content;
    }
}
