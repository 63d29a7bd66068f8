package dev.edge.app;

import android.app.Activity;
import android.app.AlertDialog;
import android.content.ActivityNotFoundException;
import android.content.Intent;
import android.content.pm.PackageInfo;
import android.os.Bundle;
import android.webkit.ValueCallback;
import android.webkit.WebView;
import android.widget.FrameLayout;

/** The one screen: a WebView that shows assets/www, and what only an activity can do for it. */
public final class MainActivity extends Activity implements Shell.Screen {
    private static final int PICK = 1;
    /** The first Chromium that knows all that the page uses (Array.findLast). */
    private static final int OLDEST_WEBVIEW = 97;

    private static final String OLD_WEBVIEW =
            "This app needs a newer Android System WebView. Update it in the app store, then open the app again.";

    private Session session;
    private Page page;

    @Override
    protected void onCreate(Bundle state) {
        super.onCreate(state);
        if (webViewVersion() < OLDEST_WEBVIEW) {
            new AlertDialog.Builder(this).setMessage(OLD_WEBVIEW).setCancelable(false).show();
            return;
        }
        session = Session.of(this);
        FrameLayout frame = new FrameLayout(this);
        page = new Page(this, session, new Shell(this), state != null);
        frame.addView(page.view());
        setContentView(frame);
        new Bars(getWindow(), page).watch(frame);
        session.show(page);
    }

    /** Chromium's major version in the device's WebView; 0 when there is none. */
    private static int webViewVersion() {
        PackageInfo webView = WebView.getCurrentWebViewPackage();
        if (webView == null || webView.versionName == null) {
            return 0;
        }
        try {
            return Integer.parseInt(webView.versionName.split("\\.")[0]);
        } catch (NumberFormatException other) {
            return OLDEST_WEBVIEW;
        }
    }

    @Override
    protected void onStart() {
        super.onStart();
        if (page != null) {
            page.call("edgeShown", null);
        }
    }

    /** An answer goes on only while somebody can see it. */
    @Override
    protected void onStop() {
        if (page != null && !isChangingConfigurations()) {
            page.call("edgeHidden", null);
        }
        super.onStop();
    }

    /** In the background the model gives its memory back; the conversation stays. */
    @Override
    public void onTrimMemory(int level) {
        super.onTrimMemory(level);
        if (session != null && level >= TRIM_MEMORY_BACKGROUND) {
            session.request("{\"type\":\"unload\"}");
        }
    }

    @Override
    protected void onDestroy() {
        if (page != null) {
            session.hide(page);
            page.close();
            if (isFinishing()) {
                session.close();
            }
        }
        super.onDestroy();
    }

    /** Closes what is open on the page; with nothing open the app goes to the background. */
    @Override
    public void onBackPressed() {
        if (page == null) {
            super.onBackPressed();
            return;
        }
        page.call("edgeBack", new ValueCallback<String>() {
            @Override
            public void onReceiveValue(String closed) {
                if (!"true".equals(closed)) {
                    moveTaskToBack(true);
                }
            }
        });
    }

    @Override
    public void pick() {
        Intent intent = new Intent(Intent.ACTION_OPEN_DOCUMENT);
        intent.addCategory(Intent.CATEGORY_OPENABLE);
        intent.setType("*/*");
        try {
            startActivityForResult(intent, PICK);
        } catch (ActivityNotFoundException none) {
            session.event(Picked.NO_PICKER);
        }
    }

    @Override
    protected void onActivityResult(int request, int result, Intent data) {
        if (request == PICK && result == RESULT_OK && data != null && data.getData() != null) {
            new Picked(getContentResolver(), data.getData()).importInto(session);
        }
    }

    @Override
    public void dark(boolean dark) {
        Bars.paint(getWindow(), dark);
    }
}
