package dev.edge.core;

import java.io.Closeable;
import java.io.InputStream;
import java.util.ArrayDeque;
import java.util.Arrays;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;

/**
 * Speaks PROTOCOL.md. What only tells is answered on the caller's thread; what works runs one after the other on one
 * thread of its own, which alone touches the model. A stop is marked on the jobs that it means, so that none is lost
 * between a request and its start.
 */
public final class Controller implements Closeable {
    private static final long STACK = 8L << 20;
    private static final Set<String> ANSWERS = new HashSet<>(Arrays.asList("chat", "again"));
    private static final Set<String> INTERRUPTS =
            new HashSet<>(Arrays.asList("load", "unload", "new", "open", "delete", "remove"));
    private static final Set<String> TELLS = new HashSet<>(Arrays.asList("hello", "models", "settings", "history", "rename"));

    /** Something for the worker. */
    private static final class Job {
        final String type;
        final Map<String, Object> request;
        InputStream data;
        boolean stopped;

        Job(String type, Map<String, Object> request) {
            this.type = type;
            this.request = request;
        }
    }

    private final Events events;
    private final Cancel cancel = new Cancel();
    private final ArrayDeque<Job> queue = new ArrayDeque<>();
    private final State state;
    private final Thread worker;
    private Job running;
    private boolean closed;

    public Controller(Platform platform, Events events) {
        this.events = events;
        this.state = new State(platform, cancel);
        this.worker =
                new Thread(null, new Runnable() {
                    @Override
                    public void run() {
                        work();
                    }
                }, "edge-worker", STACK);
        worker.start();
    }

    /** Takes a request and returns at once. */
    public void request(String json) {
        Map<String, Object> request = null;
        String type = null;
        try {
            request = Json.parseObject(json);
            type = String.valueOf(request.get("type"));
            Reply reply = new Reply(events, request);
            if (type.equals("stop")) {
                stop();
            } else if (TELLS.contains(type)) {
                state.tell(type, request, reply);
            } else if (ANSWERS.contains(type) || INTERRUPTS.contains(type)) {
                State.check(type, request);
                enqueue(new Job(type, request));
            } else {
                throw new Failure("bad_request", "there is no request " + type, "see PROTOCOL.md");
            }
        } catch (IllegalArgumentException error) {
            fail(request, type, new Failure("bad_request", String.valueOf(error.getMessage()), "see PROTOCOL.md"));
        } catch (Failure failure) {
            fail(request, type, failure);
        }
    }

    /** Takes a file that a person picked: NAME.gguf, or NAME.json before it. size: -1 when not known. */
    public void importFile(String name, InputStream data, long size) {
        Job job = new Job("import", Json.object("type", "import", "name", name, "size", size));
        job.data = data;
        try {
            enqueue(job);
        } catch (Failure failure) {
            fail(job.request, job.type, failure);
        }
    }

    private void fail(Map<String, Object> request, String type, Failure failure) {
        new Reply(events, request).error(failure, type);
    }

    private void enqueue(Job job) throws Failure {
        synchronized (queue) {
            if (closed) {
                return;
            }
            if (ANSWERS.contains(job.type) && answering()) {
                throw new Failure("busy", "an answer is being written", "stop it first");
            }
            if (INTERRUPTS.contains(job.type)) {
                stop();
            }
            queue.add(job);
            queue.notifyAll();
        }
    }

    private boolean answering() {
        boolean found = running != null && ANSWERS.contains(running.type);
        for (Job job : queue) {
            found |= ANSWERS.contains(job.type);
        }
        return found;
    }

    /** Ends the answer, load or copy that runs or waits, and nothing that is asked later. */
    private void stop() {
        synchronized (queue) {
            for (Job job : queue) {
                job.stopped = true;
            }
            if (running != null) {
                cancel.set();
            }
        }
    }

    private Job take() throws InterruptedException {
        synchronized (queue) {
            running = null;
            while (queue.isEmpty() && !closed) {
                queue.wait();
            }
            running = queue.poll();
            if (running != null && running.stopped) {
                cancel.set();
            } else {
                cancel.clear();
            }
            return running;
        }
    }

    private void work() {
        try {
            for (Job job = take(); job != null; job = take()) {
                Reply reply = new Reply(events, job.request);
                try {
                    state.work(job.type, job.request, job.data, reply);
                } catch (Failure failure) {
                    reply.error(failure, job.type);
                } catch (RuntimeException error) {
                    reply.error(new Failure("engine", String.valueOf(error), "start the app again"), job.type);
                }
            }
        } catch (InterruptedException error) {
            Thread.currentThread().interrupt();
        } finally {
            state.close();
        }
    }

    /** Stops what runs, waits for it, and frees the model. */
    @Override
    public void close() {
        synchronized (queue) {
            closed = true;
            stop();
            queue.notifyAll();
        }
        boolean interrupted = false;
        while (worker.isAlive()) {
            try {
                worker.join();
            } catch (InterruptedException error) {
                interrupted = true;
            }
        }
        if (interrupted) {
            Thread.currentThread().interrupt();
        }
    }
}
