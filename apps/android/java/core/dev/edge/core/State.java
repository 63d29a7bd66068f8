package dev.edge.core;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/**
 * What the page shows: phase, model, conversation, and the answer so far. The worker alone changes it, any thread may
 * ask. Both hold this object's lock, and the events that tell of a change are sent under it too, so that a page that
 * joins in the middle of an answer gets every character once.
 */
final class State {
    private final MemoryCheck memory;
    private String phase = "empty";
    private String variant;
    private Speaker speaker;
    private Conversation conversation;
    private List<Map<String, Object>> before;
    private StringBuilder partial;

    State(MemoryCheck memory, Conversation conversation) {
        this.memory = memory;
        this.conversation = conversation;
    }

    synchronized void tell(Reply reply) {
        reply.send(
                "state",
                Json.object(
                        "phase", phase,
                        "model", speaker == null ? null : speaker.model.toMap(null),
                        "conversation", conversation.id,
                        "title", conversation.title(),
                        "messages", conversation.messages,
                        "partial", partial,
                        "memory", memory(),
                        "plain", speaker != null && speaker.plain()));
    }

    private Map<String, Object> memory() {
        return memory.toMap(speaker == null ? 0 : speaker.engine.context, variant);
    }

    /** Null: no model is loaded. */
    synchronized Speaker speaker() {
        return speaker;
    }

    synchronized Conversation conversation() {
        return conversation;
    }

    /** Null: no library is opened yet. */
    synchronized String variant() {
        return variant;
    }

    synchronized void opened(String library) {
        variant = library;
    }

    synchronized void loading(Reply reply) {
        unload();
        phase = "loading";
        tell(reply);
    }

    synchronized void loaded(Speaker next) {
        speaker = next;
    }

    synchronized void unload() {
        if (speaker != null) {
            speaker.engine.close();
            speaker = null;
        }
    }

    synchronized void show(Conversation next, Reply reply) {
        conversation = next;
        if (speaker != null) {
            speaker.restart();
        }
        tell(reply);
    }

    /** A question was asked; `again`: in place of the last one, which goes with its answer. */
    synchronized void ask(String question, boolean again, Reply reply) {
        before = new ArrayList<>(conversation.messages);
        if (again) {
            conversation.takeBack();
        }
        conversation.messages.add(Json.object("role", "user", "text", question));
        partial = new StringBuilder();
        phase = "answering";
        tell(reply);
    }

    synchronized void piece(String text, Reply reply) {
        partial.append(text);
        reply.send("piece", Json.object("text", text));
    }

    synchronized void answered(Engine.Run run, Reply reply) {
        String text = partial.toString();
        Map<String, Object> numbers = Speaker.numbers(run);
        conversation.messages.add(
                Json.object("role", "assistant", "text", text, "reason", run.reason, "numbers", numbers));
        conversation.model = speaker.model.id;
        conversation.updated = System.currentTimeMillis() / 1000;
        partial = null;
        reply.send("done", Json.object("reason", run.reason, "text", text, "numbers", numbers, "memory", memory()));
    }

    /** Nothing is loading or being answered any more. A question that got no answer was never asked. */
    synchronized void settle(Reply reply) {
        if (partial != null) {
            conversation.messages.clear();
            conversation.messages.addAll(before);
            partial = null;
        }
        phase = speaker == null ? "empty" : "ready";
        tell(reply);
    }
}
