package android.content;

public class ClipData {
    public static native ClipData newPlainText(CharSequence label, CharSequence text);

    public static class Item {
    }
}
