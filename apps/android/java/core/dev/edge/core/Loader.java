package dev.edge.core;

import java.io.File;
import java.io.IOException;

/** From the id of a model to a model that answers; what can be told at a glance is told before anything is read. */
final class Loader {
    private final Platform platform;
    private final Cancel cancel;
    private final ModelStore store;
    private final Preferences preferences;
    private final MemoryCheck memory;
    private final State state;

    Loader(
            Platform platform, Cancel cancel, ModelStore store, Preferences preferences, MemoryCheck memory, State state) {
        this.platform = platform;
        this.cancel = cancel;
        this.store = store;
        this.preferences = preferences;
        this.memory = memory;
        this.state = state;
    }

    /** Tells how it went, be it by `error`; Failure for what can be told at a glance. */
    void load(String id, Reply reply) throws Failure {
        ModelInfo model = store.find(id);
        Failure problem = store.problem(model);
        if (problem != null) {
            throw problem;
        }
        state.loading(reply);
        try {
            int wanted = preferences.settings().integer("context");
            int context = wanted == 0 ? model.context : Math.min(wanted, model.context);
            memory.check(model, context);
            File file = store.ready(model, steps("copy", model, reply), steps("check", model, reply));
            open(model, file, context, reply);
        } catch (Failure failure) {
            reply.error(failure, "load");
        } finally {
            state.settle(reply);
        }
    }

    private void open(final ModelInfo model, File file, int context, Reply reply) throws Failure {
        if (state.variant() == null) {
            state.opened(CpuVariant.link(platform.libraries(), cpuinfo()));
        }
        int chosen = preferences.settings().integer("threads");
        int threads = chosen > 0 ? chosen : Math.min(4, Runtime.getRuntime().availableProcessors());
        final Steps steps = steps("load", model, reply);
        Speaker speaker = new Speaker(model, file, context, threads, cancel, new Llama.Progress() {
            @Override
            public boolean on(double fraction) {
                return steps.on((long) (fraction * model.size));
            }
        });
        // A stop may come when the weights are mapped and llama.cpp asks no more.
        if (cancel.isSet()) {
            speaker.engine.close();
            throw Engine.stopped();
        }
        state.loaded(speaker);
        preferences.use(model.sampling());
    }

    private Steps steps(String stage, ModelInfo model, Reply reply) {
        return new Steps(stage, model.id, model.size, cancel, reply);
    }

    private String cpuinfo() {
        try {
            return Files.read(new File(platform.proc(), "cpuinfo"));
        } catch (IOException error) {
            return "";
        }
    }
}
