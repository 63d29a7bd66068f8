package android.webkit;

public class ConsoleMessage {
    public native String message();
    public native String sourceId();
    public native int lineNumber();
}
