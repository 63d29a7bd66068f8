package dev.edge.core;

/** Something that a person is told: the codes are those of PROTOCOL.md. */
public final class Failure extends Exception {
    private static final long serialVersionUID = 1;

    public final String code;
    public final String hint;

    public Failure(String code, String message, String hint) {
        super(message);
        this.code = code;
        this.hint = hint;
    }
}
