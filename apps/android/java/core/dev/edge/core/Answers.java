package dev.edge.core;

import java.security.SecureRandom;
import java.util.List;

/** A question to the loaded model, and the last one anew. */
final class Answers {
    private final State state;
    private final History history;
    private final Preferences preferences;
    private final SecureRandom random = new SecureRandom();

    Answers(State state, History history, Preferences preferences) {
        this.state = state;
        this.history = history;
        this.preferences = preferences;
    }

    /** Failure no_model, too_long, storage, engine. `State.settle` must follow. */
    void chat(String question, Reply reply) throws Failure {
        answer(question, false, reply);
    }

    /** The last question with another seed. Failure bad_request when there is none, and those of `chat`. */
    void again(Reply reply) throws Failure {
        Conversation conversation = state.conversation();
        String question = conversation.lastQuestion();
        if (question == null) {
            throw new Failure("bad_request", "there is no answer to make anew", "ask something");
        }
        conversation.tries++;
        answer(question, true, reply);
    }

    private void answer(String question, boolean again, final Reply reply) throws Failure {
        Speaker speaker = state.speaker();
        if (speaker == null) {
            throw new Failure("no_model", "no model is loaded", "choose a model");
        }
        Conversation conversation = state.conversation();
        state.ask(question, again, reply);
        Settings settings = preferences.settings();
        List<String> before = conversation.spoken();
        Engine.Run run = speaker.answer(before, question, settings, seed(settings, conversation), new Speaker.Listener() {
            @Override
            public void piece(String text) {
                state.piece(text, reply);
            }

            @Override
            public void trimmed(int messages) {
                String told = "the context is full: the oldest " + messages + " messages are no longer sent";
                reply.send("note", Json.object("code", "context_trimmed", "message", told, "dropped", messages));
            }
        });
        state.answered(run, reply);
        synchronized (state) {
            history.save(conversation);
        }
    }

    private int seed(Settings settings, Conversation conversation) {
        int chosen = settings.integer("seed");
        return chosen < 0
                ? random.nextInt() & Integer.MAX_VALUE
                : chosen + conversation.messages.size() - 1 + conversation.tries;
    }
}
