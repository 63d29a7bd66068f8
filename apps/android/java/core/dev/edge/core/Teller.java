package dev.edge.core;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/** The requests that ask what there is, answered on the caller's thread while the worker works. */
final class Teller {
    private final State state;
    private final ModelStore store;
    private final History history;
    private final Preferences preferences;

    Teller(State state, ModelStore store, History history, Preferences preferences) {
        this.state = state;
        this.store = store;
        this.history = history;
        this.preferences = preferences;
    }

    void tell(String type, Map<String, Object> request, Reply reply) throws Failure {
        boolean all = type.equals("hello");
        synchronized (state) {
            if (all) {
                state.tell(reply);
            }
            if (all || type.equals("models")) {
                models(reply);
            }
            if (all || type.equals("settings")) {
                preferences.tell(request.get("values"), reply);
            }
            if (type.equals("rename")) {
                rename(request, reply);
            }
            if (all || type.equals("history") || type.equals("rename")) {
                reply.send("history", Json.object("conversations", history.list()));
            }
        }
    }

    void models(Reply reply) {
        synchronized (state) {
            List<Failure> problems = new ArrayList<>();
            List<Map<String, Object>> models = new ArrayList<>();
            for (ModelInfo model : store.list(problems)) {
                models.add(model.toMap(store.problem(model)));
            }
            Speaker speaker = state.speaker();
            reply.send("models", Json.object("models", models, "current", speaker == null ? null : speaker.model.id));
            for (Failure problem : problems) {
                reply.error(problem, "models");
            }
        }
    }

    private void rename(Map<String, Object> request, Reply reply) throws Failure {
        Requests.check("rename", request);
        String id = (String) request.get("conversation");
        Object title = request.get("title");
        if (!(title instanceof String) || ((String) title).trim().isEmpty()) {
            throw new Failure("bad_request", "rename needs title, a text", "see PROTOCOL.md");
        }
        boolean shown = state.conversation().id.equals(id);
        Conversation named = shown ? state.conversation() : history.open(id);
        named.given = ((String) title).trim();
        history.save(named);
        if (shown) {
            state.tell(reply);
        }
    }
}
