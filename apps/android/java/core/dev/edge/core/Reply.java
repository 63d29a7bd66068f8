package dev.edge.core;

import java.util.Map;

/** Sends the events that answer one request, with its id. */
final class Reply {
    private final Events events;
    private final Object id;

    Reply(Events events, Map<String, Object> request) {
        this.events = events;
        this.id = request == null ? null : request.get("id");
    }

    void send(String type, Map<String, Object> fields) {
        Map<String, Object> event = Json.object("type", type);
        event.putAll(fields);
        if (id instanceof Number) {
            event.put("id", id);
        }
        events.event(Json.write(event));
    }

    void error(Failure failure, String request) {
        send(
                "error",
                Json.object(
                        "code", failure.code,
                        "message", String.valueOf(failure.getMessage()),
                        "hint", failure.hint,
                        "request", request));
    }
}
