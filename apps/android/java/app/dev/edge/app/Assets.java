package dev.edge.app;

import android.app.Activity;
import android.net.Uri;
import android.webkit.RenderProcessGoneDetail;
import android.webkit.WebResourceRequest;
import android.webkit.WebResourceResponse;
import android.webkit.WebView;
import android.webkit.WebViewClient;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.util.Collections;
import java.util.HashMap;
import java.util.Map;

/** Answers the page's requests from assets/www, and every other request with 404. */
final class Assets extends WebViewClient {
    /** A secure origin that Google keeps for this: nothing answers there. */
    private static final String HOST = "appassets.androidplatform.net";
    static final String HOME = "https://" + HOST + "/www/index.html";
    /** The page's address when Android brings the app back as it was left: main.js opens the last conversation. */
    static final String RESTORED = HOME + "#restored";

    private static final Map<String, String> TYPES = new HashMap<>();

    static {
        TYPES.put("html", "text/html");
        TYPES.put("css", "text/css");
        TYPES.put("js", "text/javascript");
    }

    private final Activity activity;
    private final Runnable loaded;

    Assets(Activity activity, Runnable loaded) {
        this.activity = activity;
        this.loaded = loaded;
    }

    @Override
    public void onPageFinished(WebView view, String url) {
        loaded.run();
    }

    @Override
    public WebResourceResponse shouldInterceptRequest(WebView view, WebResourceRequest request) {
        Uri url = request.getUrl();
        String type = type(url);
        if (type == null) {
            return missing();
        }
        try {
            InputStream file = activity.getAssets().open(url.getPath().substring(1));
            return new WebResourceResponse(type, "utf-8", file);
        } catch (IOException absent) {
            return missing();
        }
    }

    /** The content type of one of the page's own files; null for every other address. */
    static String type(Uri url) {
        String path = url.getPath();
        boolean own = "https".equals(url.getScheme()) && HOST.equals(url.getAuthority());
        if (!own || path == null || !path.startsWith("/www/") || path.contains("..")) {
            return null;
        }
        return TYPES.get(path.substring(path.lastIndexOf('.') + 1));
    }

    private static WebResourceResponse missing() {
        Map<String, String> headers = Collections.emptyMap();
        InputStream empty = new ByteArrayInputStream(new byte[0]);
        return new WebResourceResponse("text/plain", "utf-8", 404, "Not Found", headers, empty);
    }

    /** The page leads nowhere. */
    @Override
    public boolean shouldOverrideUrlLoading(WebView view, WebResourceRequest request) {
        return true;
    }

    /** Android took the renderer's memory: a new page asks the controller, which lives here, where it was. */
    @Override
    public boolean onRenderProcessGone(WebView view, RenderProcessGoneDetail detail) {
        activity.recreate();
        return true;
    }
}
