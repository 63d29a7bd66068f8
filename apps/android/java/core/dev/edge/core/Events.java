package dev.edge.core;

/** Takes the controller's events, JSON objects; called on its worker thread, and for refusals on the caller's. */
public interface Events {
    void event(String json);
}
