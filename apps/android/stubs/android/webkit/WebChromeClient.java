package android.webkit;

public class WebChromeClient {
    public native boolean onConsoleMessage(ConsoleMessage message);
}
