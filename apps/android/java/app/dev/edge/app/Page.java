package dev.edge.app;

import android.app.Activity;
import android.graphics.Color;
import android.os.Handler;
import android.os.Looper;
import android.view.View;
import android.webkit.JavascriptInterface;
import android.webkit.ValueCallback;
import android.webkit.WebSettings;
import android.webkit.WebView;
import java.util.Locale;

/** The WebView with assets/www in it: no files, no content providers, no network, no way to another page. */
final class Page {
    private final WebView web;
    private final Handler main = new Handler(Looper.getMainLooper());
    private boolean closed;
    private String insets;

    /** What the page sees as `EdgeHost`. WebView calls it on a thread of its own. */
    public static final class Host {
        private final Session session;

        Host(Session session) {
            this.session = session;
        }

        @JavascriptInterface
        public void request(String json) {
            session.request(json);
        }
    }

    /** restored: the app was left, its process ended, and now it is to be as it was. */
    Page(Activity activity, Session session, Shell shell, boolean restored) {
        web = new WebView(activity);
        web.setBackgroundColor(Color.TRANSPARENT);
        WebSettings settings = web.getSettings();
        settings.setJavaScriptEnabled(true);
        settings.setDomStorageEnabled(true);
        settings.setAllowFileAccess(false);
        settings.setAllowContentAccess(false);
        settings.setGeolocationEnabled(false);
        web.setWebViewClient(new Assets(activity, new Runnable() {
            @Override
            public void run() {
                loaded();
            }
        }));
        web.addJavascriptInterface(new Host(session), "EdgeHost");
        web.addJavascriptInterface(shell, "EdgeShell");
        web.loadUrl(restored ? Assets.RESTORED : Assets.HOME);
    }

    View view() {
        return web;
    }

    /** Gives one event, a JSON object, to the page; any thread. JSON is JavaScript since ES2019. */
    void receive(String json) {
        run("window.edge&&edge.onEvent(" + json + ")", null);
    }

    /** Calls the page's function `name` if it is there; `result` may be null. */
    void call(String name, ValueCallback<String> result) {
        run("window." + name + "&&" + name + "()", result);
    }

    /** What the device's bars cover, in CSS pixels. It is said again when the page has loaded, which may be later. */
    void insets(float top, float right, float bottom, float left) {
        String call = "window.edgeInsets&&edgeInsets(%.1f,%.1f,%.1f,%.1f)";
        insets = String.format(Locale.ROOT, call, top, right, bottom, left);
        run(insets, null);
    }

    /** The page has loaded. */
    private void loaded() {
        if (insets != null) {
            run(insets, null);
        }
    }

    /** A JavaScript expression, in the order of the calls. */
    private void run(final String script, final ValueCallback<String> result) {
        main.post(new Runnable() {
            @Override
            public void run() {
                if (!closed) {
                    web.evaluateJavascript(script, result);
                }
            }
        });
    }

    void close() {
        closed = true;
        web.destroy();
    }
}
