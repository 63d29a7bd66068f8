package dev.edge.host;

import dev.edge.core.Controller;
import dev.edge.core.Events;
import dev.edge.core.Json;
import java.io.ByteArrayInputStream;
import java.io.InputStream;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * For tests: the controller asked from within its own events, as a page that reacts at once. Arguments: those of
 * HostServer, and a model's id. Prints one JSON object.
 */
public final class ControllerProbe implements Events {
    private static final int ROUNDS = 5;

    private final LinkedBlockingQueue<Map<String, Object>> seen = new LinkedBlockingQueue<>();
    private final AtomicInteger left = new AtomicInteger();
    private final AtomicInteger closed = new AtomicInteger();
    private final CountDownLatch made = new CountDownLatch(1);
    private final Controller controller;

    private ControllerProbe(String[] folders) {
        controller = new Controller(new HostPlatform(folders), this);
        made.countDown();
    }

    public static void main(String[] arguments) throws InterruptedException {
        ControllerProbe probe = new ControllerProbe(arguments);
        List<String> atOnce = probe.atOnce(arguments[6]);
        int imported = probe.imported();
        probe.controller.close();
        probe.controller.importFile("late.gguf", probe.stream(), 3);
        System.out.println(
                Json.write(Json.object("at_once", atOnce, "imported", imported, "late", probe.closed.get() - imported)));
        System.exit(0);
    }

    @Override
    public void event(String json) {
        Map<String, Object> event = Json.parseObject(json);
        if ("ready".equals(event.get("phase")) && left.getAndDecrement() > 0) {
            await();
            controller.request("{\"type\": \"chat\", \"text\": \"and now\"}");
        }
        seen.add(event);
    }

    private void await() {
        try {
            made.await();
        } catch (InterruptedException ended) {
            Thread.currentThread().interrupt();
        }
    }

    private Map<String, Object> next(String type) throws InterruptedException {
        while (true) {
            Map<String, Object> event = seen.poll(15, TimeUnit.SECONDS);
            if (event == null) {
                throw new IllegalStateException("no " + type);
            }
            if (type.equals(event.get("type")) || "error".equals(event.get("type"))) {
                return event;
            }
        }
    }

    /** Each time that the app says that it is ready, the next question comes within that very event. */
    private List<String> atOnce(String model) throws InterruptedException {
        controller.request("{\"type\": \"settings\", \"values\": {\"max_tokens\": 2}}");
        left.set(ROUNDS);
        controller.request(Json.write(Json.object("type", "load", "model", model)));
        List<String> reasons = new ArrayList<>();
        for (int i = 0; i < ROUNDS; i++) {
            Map<String, Object> event = next("done");
            reasons.add(String.valueOf(event.get(event.get("type").equals("done") ? "reason" : "code")));
        }
        return reasons;
    }

    private InputStream stream() {
        return new ByteArrayInputStream(new byte[3]) {
            @Override
            public void close() {
                closed.incrementAndGet();
            }
        };
    }

    /** How many of two picked files, one of them no model, were closed. */
    private int imported() throws InterruptedException {
        controller.importFile("bad.gguf", stream(), 3);
        next("error");
        controller.importFile("good.json", stream(), 3);
        next("models");
        controller.request("{\"type\": \"new\"}");
        next("state");
        return closed.get();
    }
}
