package dev.edge.app;

import android.app.Activity;
import android.content.ClipData;
import android.content.ClipboardManager;
import android.content.Context;
import android.webkit.JavascriptInterface;

/** What the page sees as `EdgeShell`: the device around it. WebView calls it on a thread of its own. */
public final class Shell {
    /** The parts that an activity does, on the main thread. */
    interface Screen {
        /** Opens Android's file picker. */
        void pick();

        /** The page's colours are dark now, or light. */
        void dark(boolean dark);
    }

    private final Activity activity;
    private final Screen screen;

    <T extends Activity & Screen> Shell(T activity) {
        this.activity = activity;
        this.screen = activity;
    }

    @JavascriptInterface
    public void pick() {
        activity.runOnUiThread(new Runnable() {
            @Override
            public void run() {
                screen.pick();
            }
        });
    }

    @JavascriptInterface
    public void bars(final boolean dark) {
        activity.runOnUiThread(new Runnable() {
            @Override
            public void run() {
                screen.dark(dark);
            }
        });
    }

    @JavascriptInterface
    public void copy(final String text) {
        activity.runOnUiThread(new Runnable() {
            @Override
            public void run() {
                ClipboardManager clipboard = (ClipboardManager) activity.getSystemService(Context.CLIPBOARD_SERVICE);
                clipboard.setPrimaryClip(ClipData.newPlainText("edge", text));
            }
        });
    }
}
