package dev.edge.core;

import java.util.Arrays;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;

/** The kinds of requests (PROTOCOL.md), and the field that each cannot do without. */
final class Requests {
    private static final Set<String> ANSWERS = set("chat", "again");
    private static final Set<String> INTERRUPTS = set("load", "unload", "new", "open", "delete", "remove");
    private static final Set<String> TELLS = set("hello", "models", "settings", "history", "rename");
    private static final Set<String> OF_MODELS = set("load", "remove");
    private static final Set<String> OF_CONVERSATIONS = set("open", "rename", "delete");

    private Requests() {}

    private static Set<String> set(String... types) {
        return new HashSet<>(Arrays.asList(types));
    }

    /** Answered on the caller's thread. */
    static boolean tells(String type) {
        return TELLS.contains(type);
    }

    /** Makes an answer of the model. */
    static boolean answers(String type) {
        return ANSWERS.contains(type);
    }

    /** Stops an answer that runs. */
    static boolean interrupts(String type) {
        return INTERRUPTS.contains(type);
    }

    /** Failure bad_request when the field is missing. */
    static void check(String type, Map<String, Object> request) throws Failure {
        String field = field(type, request);
        boolean right = field == null || request.get(field) instanceof String && !((String) request.get(field)).isEmpty();
        if (!right) {
            throw new Failure("bad_request", type + " needs " + field + ", a text", "see PROTOCOL.md");
        }
    }

    private static String field(String type, Map<String, Object> request) {
        if (type.equals("chat")) {
            return "text";
        }
        if (type.equals("delete") && Boolean.TRUE.equals(request.get("all"))) {
            return null;
        }
        return OF_MODELS.contains(type) ? "model" : OF_CONVERSATIONS.contains(type) ? "conversation" : null;
    }
}
