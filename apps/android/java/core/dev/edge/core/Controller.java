package dev.edge.core;

import java.io.Closeable;
import java.io.InputStream;
import java.util.ArrayDeque;
import java.util.Map;

/**
 * Speaks PROTOCOL.md. What only tells is answered on the caller's thread; what works runs one after the other on one
 * thread of its own, which alone touches the model. A stop is marked on the jobs that it means, so that none is lost
 * between a request and its start.
 */
public final class Controller implements Closeable {
    private static final long STACK = 8L << 20;

    private final Events events;
    private final Cancel cancel = new Cancel();
    private final ArrayDeque<Job> queue = new ArrayDeque<>();
    private final Desk desk;
    private final Thread worker;
    private Job running;
    private boolean closed;

    public Controller(Platform platform, Events events) {
        this.events = events;
        this.desk = new Desk(platform, cancel);
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
            } else if (Requests.tells(type)) {
                desk.teller.tell(type, request, reply);
            } else if (Requests.answers(type) || Requests.interrupts(type)) {
                Requests.check(type, request);
                enqueue(new Job(type, request, null));
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
        Job job = new Job("import", Json.object("type", "import", "name", name, "size", size), data);
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
                job.release();
                return;
            }
            if (Requests.answers(job.type) && answering()) {
                throw new Failure("busy", "an answer is being written", "stop it first");
            }
            if (Requests.interrupts(job.type)) {
                stop();
            }
            queue.add(job);
            queue.notifyAll();
        }
    }

    private boolean answering() {
        boolean found = running != null && Requests.answers(running.type);
        for (Job job : queue) {
            found |= Requests.answers(job.type);
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
                perform(job, new Reply(events, job.request));
                job.release();
            }
        } catch (InterruptedException error) {
            Thread.currentThread().interrupt();
        } finally {
            desk.state.unload();
        }
    }

    private void perform(Job job, Reply reply) {
        boolean settle = Requests.answers(job.type);
        try {
            desk.work(job.type, job.request, job.data, reply);
        } catch (Failure failure) {
            settle |= failed(job, failure, reply);
        } catch (OutOfMemoryError error) {
            String cause = "the app has no memory left for " + job.type;
            settle |= failed(job, new Failure("memory_engine", cause, "close other apps, or choose a smaller model"), reply);
        } catch (RuntimeException | StackOverflowError error) {
            settle |= failed(job, new Failure("engine", String.valueOf(error), "load the model again"), reply);
        }
        if (settle) {
            // Whoever is told that the app is ready may ask at once: that must not find this answer still running.
            synchronized (queue) {
                running = null;
            }
            desk.state.settle(reply);
        }
    }

    /** Tells of it; whether the model went with it. */
    private boolean failed(Job job, Failure failure, Reply reply) {
        boolean lost = failure.code.equals("engine");
        if (lost) {
            desk.state.unload();
        }
        reply.error(failure, job.type);
        return lost;
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
