package dev.edge.core;

import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.security.SecureRandom;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/**
 * What the app knows, and what each request does to it. `work` runs on the worker only; `tell` anywhere. The fields
 * that both see change under this object's lock, and the events that tell of a change are sent under it too, so that
 * a page that joins in the middle of an answer gets every character once.
 */
final class State {
    private final Platform platform;
    private final Cancel cancel;
    private final ModelStore store;
    private final History history;
    private final Preferences preferences;
    private final MemoryCheck memory;
    private final SecureRandom random = new SecureRandom();
    private String phase = "empty";
    private String variant;
    private Speaker speaker;
    private Conversation conversation;
    private StringBuilder partial;
    private int tries;

    State(Platform platform, Cancel cancel) {
        this.platform = platform;
        this.cancel = cancel;
        this.store = new ModelStore(platform);
        this.history = new History(new File(platform.files(), "history"));
        this.preferences = new Preferences(new File(platform.files(), "settings.json"));
        this.memory = new MemoryCheck(platform.proc());
        this.conversation = history.start();
    }

    /** Failure bad_request when a field is missing. */
    static void check(String type, Map<String, Object> request) throws Failure {
        String field =
                type.equals("load") || type.equals("remove")
                        ? "model"
                        : type.equals("chat")
                                ? "text"
                                : type.equals("open") || type.equals("rename") || type.equals("delete") && !Boolean.TRUE.equals(request.get("all"))
                                        ? "conversation"
                                        : null;
        boolean right = field == null || request.get(field) instanceof String && !((String) request.get(field)).isEmpty();
        if (!right) {
            throw new Failure("bad_request", type + " needs " + field + ", a text", "see PROTOCOL.md");
        }
    }

    synchronized void tell(String type, Map<String, Object> request, Reply reply) throws Failure {
        if (type.equals("hello")) {
            state(reply);
        }
        if (type.equals("hello") || type.equals("models")) {
            models(reply);
        }
        if (type.equals("hello") || type.equals("settings")) {
            preferences.tell(request.get("values"), reply);
        }
        if (type.equals("rename")) {
            rename(request, reply);
        }
        if (type.equals("hello") || type.equals("history") || type.equals("rename")) {
            reply.send("history", Json.object("conversations", history.list()));
        }
    }

    private void rename(Map<String, Object> request, Reply reply) throws Failure {
        check("rename", request);
        String id = (String) request.get("conversation");
        Object title = request.get("title");
        if (!(title instanceof String) || ((String) title).trim().isEmpty()) {
            throw new Failure("bad_request", "rename needs title, a text", "see PROTOCOL.md");
        }
        boolean shown = conversation.id.equals(id);
        Conversation named = shown ? conversation : history.open(id);
        named.given = ((String) title).trim();
        history.save(named);
        if (shown) {
            state(reply);
        }
    }

    private synchronized void state(Reply reply) {
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

    private synchronized void models(Reply reply) {
        List<Failure> problems = new ArrayList<>();
        List<Map<String, Object>> models = new ArrayList<>();
        for (ModelInfo model : store.list(problems)) {
            models.add(model.toMap(store.problem(model)));
        }
        reply.send("models", Json.object("models", models, "current", speaker == null ? null : speaker.model.id));
        for (Failure problem : problems) {
            reply.error(problem, "models");
        }
    }

    private synchronized void enter(String next, Reply reply) {
        phase = next;
        state(reply);
    }

    void work(String type, Map<String, Object> request, InputStream data, Reply reply) throws Failure {
        switch (type) {
            case "load":
                load((String) request.get("model"), reply);
                break;
            case "unload":
                unload();
                enter("empty", reply);
                break;
            case "chat":
                chat((String) request.get("text"), reply);
                break;
            case "again":
                again(reply);
                break;
            case "new":
                show(history.start(), reply);
                break;
            case "open":
                show(history.open((String) request.get("conversation")), reply);
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

    private void load(String id, Reply reply) throws Failure {
        ModelInfo model = store.find(id);
        Failure problem = store.problem(model);
        if (problem != null) {
            throw problem;
        }
        unload();
        enter("loading", reply);
        boolean loaded = false;
        try {
            int wanted = preferences.settings().integer("context");
            int context = wanted == 0 ? model.context : Math.min(wanted, model.context);
            memory.check(model, context);
            File file = store.ready(model, steps("copy", model, reply), steps("check", model, reply));
            open(model, file, context, reply);
            loaded = true;
        } catch (Failure failure) {
            reply.error(failure, "load");
        } finally {
            enter(loaded ? "ready" : "empty", reply);
        }
    }

    private void open(ModelInfo model, File file, int context, Reply reply) throws Failure {
        if (variant == null) {
            variant = CpuVariant.link(platform.libraries(), cpuinfo());
        }
        int threads = preferences.settings().integer("threads");
        threads = threads > 0 ? threads : Math.min(4, Runtime.getRuntime().availableProcessors());
        final Files.Advance advance = steps("load", model, reply);
        final long size = model.size;
        Speaker next =
                new Speaker(model, file, context, threads, cancel, new Engine.Progress() {
                    @Override
                    public boolean on(double fraction) {
                        return advance.on((long) (fraction * size));
                    }
                });
        synchronized (this) {
            speaker = next;
            preferences.use(model.sampling());
        }
    }

    private String cpuinfo() {
        try {
            return Files.read(new File(platform.proc(), "cpuinfo"));
        } catch (IOException error) {
            return "";
        }
    }

    /** Sends a progress event for every whole hundredth. */
    private Files.Advance steps(final String stage, final ModelInfo model, final Reply reply) {
        return new Files.Advance() {
            private long told = -1;

            @Override
            public boolean on(long bytes) {
                long step = bytes * 100 / Math.max(1, model.size);
                if (step != told) {
                    told = step;
                    reply.send("progress", Json.object("stage", stage, "fraction", step / 100.0, "model", model.id));
                }
                return !cancel.isSet();
            }
        };
    }

    private synchronized void unload() {
        if (speaker != null) {
            speaker.engine.close();
            speaker = null;
        }
    }

    private void again(Reply reply) throws Failure {
        String question;
        synchronized (this) {
            question = conversation.takeBack();
        }
        if (question == null) {
            throw new Failure("bad_request", "there is no answer to make anew", "ask something");
        }
        tries++;
        chat(question, reply);
    }

    private void chat(String text, final Reply reply) throws Failure {
        if (speaker == null) {
            throw new Failure("no_model", "no model is loaded", "choose a model");
        }
        Settings settings = preferences.settings();
        List<String> before = conversation.spoken();
        int chosen = settings.integer("seed");
        int seed = chosen < 0 ? random.nextInt() & Integer.MAX_VALUE : chosen + conversation.messages.size() + tries;
        synchronized (this) {
            partial = new StringBuilder();
            conversation.messages.add(Json.object("role", "user", "text", text));
            enter("answering", reply);
        }
        boolean answered = false;
        try {
            Engine.Run run = speaker.answer(before, text, settings, seed, listener(reply));
            answered = true;
            finish(run, reply);
        } catch (Failure failure) {
            if (failure.code.equals("engine")) {
                unload();
            }
            reply.error(failure, "chat");
        } finally {
            synchronized (this) {
                partial = null;
                if (!answered) {
                    conversation.messages.remove(conversation.messages.size() - 1);
                }
                enter(speaker == null ? "empty" : "ready", reply);
            }
        }
    }

    private Speaker.Listener listener(final Reply reply) {
        return new Speaker.Listener() {
            @Override
            public void piece(String text) {
                synchronized (State.this) {
                    partial.append(text);
                    reply.send("piece", Json.object("text", text));
                }
            }

            @Override
            public void trimmed(int messages) {
                String told = "the context is full: the oldest " + messages + " messages are no longer sent";
                reply.send("note", Json.object("code", "context_trimmed", "message", told, "dropped", messages));
            }
        };
    }

    private synchronized void finish(Engine.Run run, Reply reply) throws Failure {
        String text = partial.toString();
        Map<String, Object> numbers = Speaker.numbers(run);
        conversation.messages.add(
                Json.object("role", "assistant", "text", text, "reason", run.reason, "numbers", numbers));
        conversation.model = speaker.model.id;
        conversation.updated = System.currentTimeMillis() / 1000;
        partial = null;
        reply.send("done", Json.object("reason", run.reason, "text", text, "numbers", numbers, "memory", memory()));
        history.save(conversation);
    }

    private synchronized void show(Conversation next, Reply reply) {
        conversation = next;
        tries = 0;
        if (speaker != null) {
            speaker.restart();
        }
        state(reply);
    }

    private void delete(Map<String, Object> request, Reply reply) throws Failure {
        boolean all = Boolean.TRUE.equals(request.get("all"));
        if (all) {
            history.deleteAll();
        } else {
            history.delete((String) request.get("conversation"));
        }
        tell("history", request, reply);
        if (all || conversation.id.equals(request.get("conversation"))) {
            show(history.start(), reply);
        }
    }

    private void remove(String id, Reply reply) throws Failure {
        if (speaker != null && speaker.model.id.equals(id)) {
            unload();
            enter("empty", reply);
        }
        store.remove(id);
        models(reply);
    }

    private void take(String name, InputStream data, final long size, final Reply reply) throws Failure {
        final String shown = name;
        store.add(name, data, size, new Files.Advance() {
            private long told = -1;

            @Override
            public boolean on(long bytes) {
                long step = size > 0 ? bytes * 100 / size : 0;
                if (step != told) {
                    told = step;
                    reply.send("progress", Json.object("stage", "copy", "fraction", step / 100.0, "model", shown));
                }
                return !cancel.isSet();
            }
        });
        models(reply);
    }

    void close() {
        unload();
    }
}
