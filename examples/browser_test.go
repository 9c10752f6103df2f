package examples

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// browser is a Chromium with one page.
type browser struct {
	t    *testing.T
	ctx  context.Context
	base string

	mu        sync.Mutex
	complains []string // what the browser itself complained of
}

// patience is how long the browser may take for one thing. The machine may be busy with others.
const patience = 90 * time.Second

func newBrowser(t *testing.T, base string, flags ...chromedp.ExecAllocatorOption) *browser {
	t.Helper()
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("no chromium on PATH")
	}
	opts := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.ExecPath(chromium), chromedp.UserDataDir(t.TempDir()),
		chromedp.DisableGPU, chromedp.Flag("hide-scrollbars", true))
	if os.Getuid() == 0 {
		opts = append(opts, chromedp.NoSandbox)
	}
	alloc, end := chromedp.NewExecAllocator(context.Background(), append(opts, flags...)...)
	ctx, cancel := chromedp.NewContext(alloc)
	t.Cleanup(func() {
		_ = chromedp.Cancel(ctx) // waits until the browser is gone, and its directory can go
		cancel()
		end()
	})
	b := &browser{t: t, ctx: ctx, base: base}
	messages := chromedp.Console(ctx)
	go func() {
		for m, err := range messages {
			if err != nil {
				return
			}
			b.hear(m)
		}
	}()
	require.NoError(t, chromedp.Do(ctx)) // the browser lives as long as the context of the first call
	b.size(1280, 900, 1)
	return b
}

// hear collects what goes wrong on the page: errors of scripts, what the content policy has kept out, failed requests.
func (b *browser) hear(m chromedp.ConsoleMessage) {
	switch m.Type {
	case "error", "warning", "assert", chromedp.ConsoleException:
		b.mu.Lock()
		defer b.mu.Unlock()
		b.complains = append(b.complains, m.Text+" "+m.URL)
	}
}

// fine fails if the browser complained of anything but what is expected.
func (b *browser) fine(expected ...string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.complains {
		require.True(b.t, slices.ContainsFunc(expected, func(e string) bool { return strings.Contains(c, e) }), "the browser says: %s", c)
	}
}

func (b *browser) run(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		require.NoError(b.t, err, "the page shows:\n%s\nthe browser says: %v", b.text("body"), b.complains)
	}
}

func (b *browser) open(path string) {
	b.t.Helper()
	b.run(chromedp.Navigate(b.base + path))
}

// text returns what can be read in an element, "" if it is not there.
func (b *browser) text(selector string) (text string) {
	ctx, cancel := context.WithTimeout(b.ctx, 10*time.Second)
	defer cancel()
	text, _ = chromedp.Run(ctx, chromedp.Evaluate[string](fmt.Sprintf("document.querySelector(%q)?.innerText || ''", selector)))
	return text
}

// eval returns the value of an expression of the page's.
func eval[T any](b *browser, expression string) (value T) {
	b.t.Helper()
	return get(b, chromedp.Evaluate[T](expression))
}

// get returns what an action does.
func get[T any](b *browser, action chromedp.Action[T]) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	value, err := chromedp.Run(ctx, action)
	require.NoError(b.t, err)
	return value
}

// reads waits until an element reads like this.
func (b *browser) reads(selector string, words ...string) {
	b.t.Helper()
	last := ""
	require.Eventually(b.t, func() bool {
		last = b.text(selector)
		for _, w := range words {
			if !strings.Contains(last, w) {
				return false
			}
		}
		return true
	}, patience, 100*time.Millisecond, "%s does not read %q", selector, words)
}

// lacks waits until an element no longer reads like this.
func (b *browser) lacks(selector, word string) {
	b.t.Helper()
	require.Eventually(b.t, func() bool { return !strings.Contains(b.text(selector), word) }, patience, 100*time.Millisecond,
		"%s still reads %q", selector, word)
}

// click clicks on the first element, as a mouse would, when it is there to be clicked on.
func (b *browser) click(selector string) {
	b.t.Helper()
	at := chromedp.CSS(selector)
	b.run(chromedp.ScrollIntoView(at), chromedp.Click(at, chromedp.NodeVisible, chromedp.NodeEnabled))
}

// pointAt moves the pointer to the middle of an element.
func (b *browser) pointAt(selector string) {
	b.t.Helper()
	b.run(chromedp.ScrollIntoView(chromedp.CSS(selector)))
	at := eval[[]float64](b, fmt.Sprintf("(r => [r.x + r.width / 2, r.y + r.height / 2])(document.querySelector(%q).getBoundingClientRect())", selector))
	b.run(chromedp.MouseEvent(input.DispatchMouseEventTypeMouseMoved, at[0], at[1]))
}

// choose picks an option, as somebody would do.
func (b *browser) choose(selector, value string) {
	b.t.Helper()
	b.run(chromedp.Evaluate[chromedp.Void](fmt.Sprintf(`{const s = document.querySelector(%q); s.value = %q; s.dispatchEvent(new Event('change', {bubbles: true}))}`, selector, value)))
}

// size gives the page a window.
func (b *browser) size(width, height int64, scale float64) {
	b.t.Helper()
	phone := width < 600
	command(b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
		Width: width, Height: height, DeviceScaleFactor: scale, Mobile: phone,
	})
	command(b, emulation.SetTouchEmulationEnabled, emulation.SetTouchEmulationEnabledParams{Enabled: phone})
}

// command gives the browser a command of its protocol.
func command[P, R any](b *browser, c cdp.Command[P, R], params P) R {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	r, err := chromedp.Call(ctx, c, params)
	require.NoError(b.t, err)
	return r
}

// fits fails if something is wider than the window.
func (b *browser) fits(where string) {
	b.t.Helper()
	wide := eval[[]string](b, `[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1 &&
		e.checkVisibility() && !e.closest('.unseen, svg, thead')).map(e => e.outerHTML.slice(0, 120))`)
	require.Empty(b.t, wide, "%s: these stand out of the window", where)
	require.LessOrEqual(b.t, eval[int](b, "document.documentElement.scrollWidth"), eval[int](b, "innerWidth"), "%s scrolls sideways", where)
}

// legible fails if text has less contrast than 4.5 to what is behind it, or a control has no name.
func (b *browser) legible(where string) {
	b.t.Helper()
	require.Empty(b.t, eval[[]string](b, `(() => {
		const canvas = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
		const over = (color, below) => {
			canvas.clearRect(0, 0, 1, 1);
			for (const c of [below, color]) { canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1); }
			return 'rgb(' + canvas.getImageData(0, 0, 1, 1).data.slice(0, 3).join(' ') + ')';
		};
		const behind = e => e ? over(getComputedStyle(e).backgroundColor, behind(e.parentElement)) : 'rgb(255 255 255)';
		const light = color => color.match(/\d+/g).map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
			.reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
		const faint = [...document.querySelectorAll('body *')].filter(e => e.checkVisibility() && !e.closest('.unseen, :disabled, option') &&
			[...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())).filter(e => {
			const back = behind(e), [a, b] = [light(back), light(over(getComputedStyle(e).color, back))].sort((a, b) => b - a);
			return (a + .05) / (b + .05) < 4.5;
		}).map(e => 'faint: ' + e.outerHTML.slice(0, 120));
		const nameless = [...document.querySelectorAll('button, select, input, a, [tabindex="0"]')].filter(e =>
			!(e.textContent.trim() && e.nodeName !== 'SELECT') && !e.ariaLabel && !(e.labels && e.labels.length)).map(e => 'no name: ' + e.outerHTML.slice(0, 120));
		return faint.concat(nameless);
	})()`), where)
}

// A device is a window in which screenshots are taken.
type device struct {
	name          string
	width, height int64
	scale         float64
}

var devices = []device{{"desktop", 1280, 900, 1}, {"phone", 390, 844, 1.5}}

// screenshots writes pictures of the page in light and dark, on each device, if $PEXPRESS_SCREENSHOTS names a directory.
// Whether or not, each must fit. Without heights there are no pictures. The height is that of the picture, the whole page's at most.
func (b *browser) screenshots(name string, heights map[string]int64) {
	b.t.Helper()
	dir := os.Getenv("PEXPRESS_SCREENSHOTS")
	for _, d := range devices {
		b.size(d.width, d.height, d.scale)
		b.fits(name + " on a " + d.name)
		for _, scheme := range []string{"light", "dark"} {
			command(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
				Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
			})
			b.legible(name + " in " + scheme)
			if dir == "" || heights == nil {
				continue
			}
			b.run(chromedp.Sleep(300 * time.Millisecond))
			height := min(float64(heights[d.name]), eval[float64](b, "document.documentElement.scrollHeight"))
			beyond := true
			shot := command(b, page.CaptureScreenshot, page.CaptureScreenshotParams{
				CaptureBeyondViewport: &beyond, Clip: &page.Viewport{Width: float64(d.width), Height: height, Scale: 1},
			}).Data
			require.NoError(b.t, os.MkdirAll(dir, 0o755))
			require.NoError(b.t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("page-%s-%s-%s.png", name, d.name, scheme)), smaller(b.t, shot), 0o644))
		}
	}
	command(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{})
	b.size(1280, 900, 1)
}

// smaller returns a picture with 256 colours.
func smaller(t *testing.T, shot []byte) []byte {
	img, err := png.Decode(bytes.NewReader(shot))
	require.NoError(t, err)
	counts := map[color.RGBA]int{}
	at := func(x, y int) color.RGBA { return color.RGBAModel.Convert(img.At(x, y)).(color.RGBA) }
	for y := img.Bounds().Min.Y; y < img.Bounds().Max.Y; y++ {
		for x := img.Bounds().Min.X; x < img.Bounds().Max.X; x++ {
			counts[at(x, y)]++
		}
	}
	palette := colours(counts)
	nearest := map[color.RGBA]uint8{}
	for c := range counts {
		nearest[c] = uint8(palette.Index(c))
	}
	out := image.NewPaletted(img.Bounds(), palette)
	for y := img.Bounds().Min.Y; y < img.Bounds().Max.Y; y++ {
		for x := img.Bounds().Min.X; x < img.Bounds().Max.X; x++ {
			out.SetColorIndex(x, y, nearest[at(x, y)])
		}
	}
	var buf bytes.Buffer
	require.NoError(t, (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&buf, out))
	return buf.Bytes()
}

// colours picks 256: those that there is most of, then others first that are not much like them, so that rare ones are among
// them.
func colours(counts map[color.RGBA]int) (palette color.Palette) {
	all := slices.SortedFunc(maps.Keys(counts), func(a, b color.RGBA) int { return counts[b] - counts[a] })
	apart := func(a, b color.RGBA) int {
		d := func(x, y uint8) int { return max(int(x)-int(y), int(y)-int(x)) }
		return d(a.R, b.R) + d(a.G, b.G) + d(a.B, b.B)
	}
	for _, c := range all[:min(64, len(all))] {
		palette = append(palette, c)
	}
	for distance := 40; distance >= 0; distance -= 8 {
		for _, c := range all {
			close := func(p color.Color) bool { return p == c || apart(p.(color.RGBA), c) < distance }
			if len(palette) < 256 && !slices.ContainsFunc(palette, close) {
				palette = append(palette, c)
			}
		}
	}
	return palette
}
