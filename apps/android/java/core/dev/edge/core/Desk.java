package dev.edge.core;

import java.io.File;
import java.io.InputStream;
import java.util.Map;

/** What each request does that the worker takes up; the worker alone comes here. */
final class Desk {
    private final Cancel cancel;
    private final ModelStore store;
    private final History history;
    private final Loader loader;
    private final Answers answers;
    final State state;
    final Teller teller;

    Desk(Platform platform, Cancel cancel) {
        this.cancel = cancel;
        store = new ModelStore(platform);
        history = new History(new File(platform.files(), "history"));
        Preferences preferences = new Preferences(new File(platform.files(), "settings.json"));
        MemoryCheck memory = new MemoryCheck(platform.proc());
        state = new State(memory, history.start());
        teller = new Teller(state, store, history, preferences);
        loader = new Loader(platform, cancel, store, preferences, memory, state);
        answers = new Answers(state, history, preferences);
    }

    /** data: of `import`; it is read, not closed. */
    void work(String type, Map<String, Object> request, InputStream data, Reply reply) throws Failure {
        switch (type) {
            case "load":
                loader.load((String) request.get("model"), reply);
                break;
            case "unload":
                state.unload();
                state.settle(reply);
                break;
            case "chat":
                answers.chat((String) request.get("text"), reply);
                break;
            case "again":
                answers.again(reply);
                break;
            case "new":
                state.show(history.start(), reply);
                break;
            case "open":
                state.show(history.open((String) request.get("conversation")), reply);
                break;
            case "delete":
                delete(request, reply);
                break;
            case "remove":
                remove((String) request.get("model"), reply);
                break;
            default:
                take((String) request.get("name"), data, ((Number) request.get("size")).longValue(), reply);
        }
    }

    private void delete(Map<String, Object> request, Reply reply) throws Failure {
        boolean all = Boolean.TRUE.equals(request.get("all"));
        if (all) {
            history.deleteAll();
        } else {
            history.delete((String) request.get("conversation"));
        }
        teller.tell("history", request, reply);
        if (all || state.conversation().id.equals(request.get("conversation"))) {
            state.show(history.start(), reply);
        }
    }

    private void remove(String id, Reply reply) throws Failure {
        Speaker speaker = state.speaker();
        if (speaker != null && speaker.model.id.equals(id)) {
            state.unload();
            state.settle(reply);
        }
        store.remove(id);
        teller.models(reply);
    }

    private void take(String name, InputStream data, long size, Reply reply) throws Failure {
        store.add(name, data, size, new Steps("copy", name, size, cancel, reply));
        teller.models(reply);
    }
}
