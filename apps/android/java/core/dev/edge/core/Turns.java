package dev.edge.core;

import java.nio.charset.Charset;
import java.util.List;
import java.util.Map;

/** The texts between the contents of messages: what is left of a chat template where no Jinja runs (PROTOCOL.md). */
public final class Turns {
    /** What Python's str.strip takes away. */
    private static final String SPACE =
            "\t\n\u000b\f\r\u001c\u001d\u001e\u001f \u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006"
                    + "\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000";
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
            contents[i] = ("EDGE" + i + "MARK").getBytes(UTF_8);
        }
        byte[] rendered = Llama.render(template.getBytes(UTF_8), contents, system);
        String[] between = rendered == null ? null : new String(rendered, UTF_8).split("EDGE[0-9]MARK", -1);
        return between == null || between.length != count + 1 ? null : between;
    }

    boolean takesSystem() {
        return texts.get("system_user") instanceof String && texts.get("start_system") instanceof String;
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
        int from = 0;
        int to = content.length();
        boolean trim = Boolean.TRUE.equals(texts.get("trim"));
        while (trim && from < to && SPACE.indexOf(content.charAt(from)) >= 0) {
            from++;
        }
        while (trim && from < to && SPACE.indexOf(content.charAt(to - 1)) >= 0) {
            to--;
        }
        return content.substring(from, to);
    }
}
