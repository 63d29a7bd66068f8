package android.graphics;

public final class Insets {
    // Set in a constructor: javac would copy a constant into the class that reads it.
    public final int left, top, right, bottom;

    private Insets(int all) {
        left = top = right = bottom = all;
    }
}
