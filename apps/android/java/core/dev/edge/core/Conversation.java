package dev.edge.core;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/** Questions and answers in turn, as the page sees them and as they lie on the disk. */
final class Conversation {
    private static final int TITLE = 60;

    final String id;
    String model;
    long updated;
    /** The title that a person gave it; null for the first question's beginning. */
    String given;
    /** How often an answer was made anew, while it was open. */
    int tries;
    /** {role, text} and, of an answer, {reason, numbers}. */
    final List<Map<String, Object>> messages = new ArrayList<>();

    Conversation(String id) {
        this.id = id;
    }

    @SuppressWarnings("unchecked")
    static Conversation of(Map<String, Object> data) {
        Conversation conversation = new Conversation((String) data.get("id"));
        conversation.model = (String) data.get("model");
        conversation.given = (String) data.get("title");
        conversation.updated = ((Number) data.get("updated")).longValue();
        for (Object message : (List<?>) data.get("messages")) {
            conversation.messages.add((Map<String, Object>) message);
        }
        return conversation;
    }

    Map<String, Object> toMap() {
        return Json.object("id", id, "title", given, "model", model, "updated", updated, "messages", new ArrayList<>(messages));
    }

    Map<String, Object> summary() {
        return Json.object(
                "id", id, "title", title(), "updated", updated, "messages", messages.size(), "model", model);
    }

    /** The given one, else the first question's beginning; "" when nothing was asked. */
    String title() {
        if (given != null) {
            return given;
        }
        String text = messages.isEmpty() ? "" : text(0).trim().replaceAll("\\s+", " ");
        int length = text.codePointCount(0, text.length());
        return length <= TITLE ? text : text.substring(0, text.offsetByCodePoints(0, TITLE)) + "…";
    }

    String text(int index) {
        return (String) messages.get(index).get("text");
    }

    /** The question of the last answer; null when there is none. */
    String lastQuestion() {
        return messages.size() < 2 ? null : text(messages.size() - 2);
    }

    /** Drops the last question and its answer. */
    void takeBack() {
        messages.subList(messages.size() - 2, messages.size()).clear();
    }

    /** Questions and answers that a prompt shows: not those that were stopped before a word, nor a question that waits. */
    List<String> spoken() {
        List<String> texts = new ArrayList<>();
        for (int i = 0; i + 1 < messages.size(); i += 2) {
            if (!text(i + 1).isEmpty()) {
                texts.add(text(i));
                texts.add(text(i + 1));
            }
        }
        return texts;
    }
}
