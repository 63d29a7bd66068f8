package android.content;

import android.net.Uri;

public class Intent {
    public static final String ACTION_OPEN_DOCUMENT = "android.intent.action.OPEN_DOCUMENT";
    public static final String ACTION_VIEW = "android.intent.action.VIEW";
    public static final String CATEGORY_OPENABLE = "android.intent.category.OPENABLE";
    public static final String EXTRA_ALLOW_MULTIPLE = "android.intent.extra.ALLOW_MULTIPLE";

    public Intent(String action) {}
    public Intent(String action, Uri uri) {}
    public native Intent addCategory(String category);
    public native Intent setType(String type);
    public native Intent putExtra(String name, boolean value);
    public native Intent addFlags(int flags);
    public native Uri getData();
    public native ClipData getClipData();
}
