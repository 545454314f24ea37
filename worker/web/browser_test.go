//go:build e2e

package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"log/slog"
	"math"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/nats-io/nats.go/jetstream"

	"lockstep/bus"
	"lockstep/model"
	"lockstep/worker"
	"lockstep/worker/fleet"
)

// browser is a Chromium with the page open.
type browser struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex
	faults   []string // what the page must not do; guarded by mu
	hosts    map[string]bool
	restarts atomic.Bool // the door is away, which a browser logs
}

// openBrowser starts a Chromium of its own, and ends it with the test.
func openBrowser(t *testing.T) *browser {
	t.Helper()
	program := os.Getenv("LOCKSTEP_CHROMIUM")
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil && program == "" {
			program = path
		}
	}
	if program == "" {
		t.Fatal("no Chromium: apt-get install chromium, or name one with LOCKSTEP_CHROMIUM")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(program), chromedp.NoSandbox)
	bounded, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	allocator, end := chromedp.NewExecAllocator(bounded, options...)
	ctx, shut := chromedp.NewContext(allocator)
	b := &browser{t: t, ctx: ctx, hosts: map[string]bool{}}
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil { // waits for its end
			t.Error(err)
		}
		shut()
		end()
		cancel()
	})
	if err := errors.Join(
		chromedp.Do(ctx), // starts it
		chromedp.Listen(ctx, b.heard),
		call(b, network.Enable, network.EnableParams{}), call(b, cdplog.Enable, cdp.Empty{}), call(b, runtime.Enable, cdp.Empty{}),
	); err != nil {
		t.Fatal(err)
	}
	return b
}

// heard takes in what the browser says of the page.
func (b *browser) heard(event any) {
	fault := ""
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		fault = fmt.Sprintf("%s %s:%d", e.ExceptionDetails.Text, e.ExceptionDetails.URL, e.ExceptionDetails.LineNumber)
	case *runtime.EventConsoleAPICalled:
		fault = fmt.Sprintf("console.%s %v", e.Type, e.Args)
	case *cdplog.EventEntryAdded:
		away := e.Entry.Source == cdplog.EntrySourceNetwork && b.restarts.Load()
		refused := e.Entry.Source == cdplog.EntrySourceNetwork && strings.Contains(e.Entry.Text, "422")
		if !away && !refused {
			fault = fmt.Sprintf("%s %s: %s %s", e.Entry.Source, e.Entry.Level, e.Entry.Text, e.Entry.URL)
		}
	case *network.EventRequestWillBeSent:
		u, err := url.Parse(e.Request.URL)
		if err != nil {
			fault = err.Error()
			break
		}
		b.mu.Lock()
		b.hosts[u.Host] = true
		b.mu.Unlock()
	}
	if fault != "" {
		b.mu.Lock()
		b.faults = append(b.faults, fault)
		b.mu.Unlock()
	}
}

func (b *browser) run(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		b.t.Fatal(err)
	}
}

// call runs one of the browser's commands, whose answer no one needs.
func call[P, R any](b *browser, command cdp.Command[P, R], params P) error {
	_, err := chromedp.Call(b.ctx, command, params)
	return err
}

// eval is what a JavaScript expression says.
func eval[T any](b *browser, expression string) (out T) {
	b.t.Helper()
	out, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return out
}

// until waits until a JavaScript expression holds.
func (b *browser) until(expression string) {
	b.t.Helper()
	for deadline := time.Now().Add(patience); !eval[bool](b, "!!("+expression+")"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.shoot("failed.png", 1280, false)
			b.mu.Lock()
			defer b.mu.Unlock()
			b.t.Fatalf(
				"it never came to %s\n%s\n%s", expression, strings.Join(b.faults, "\n"),
				eval[string](b, `document.body.innerText`),
			)
		}
	}
}

// put types a text into an input, in the place of what it has.
func (b *browser) put(id, text string) {
	b.t.Helper()
	eval[bool](b, fmt.Sprintf("document.getElementById(%q).select(), true", id))
	b.run(chromedp.SendKeys(chromedp.CSS("#"+id), kb.Backspace+text))
}

// choose selects an option by its text, as a user would.
func (b *browser) choose(id, text string) {
	b.t.Helper()
	if !eval[bool](
		b,
		fmt.Sprintf(
			`(() => { const s = document.getElementById(%q), o = [...s.options].find((o) => o.text === %q); if (!o) return false; s.value = o.value; s.dispatchEvent(new Event('change', { bubbles: true })); return true })()`,
			id, text,
		),
	) {
		b.t.Fatalf("%s has no option %q", id, text)
	}
}

// shoot writes a screenshot of the whole page where LOCKSTEP_SHOTS says.
func (b *browser) shoot(name string, width int64, dark bool) {
	b.t.Helper()
	dir := os.Getenv("LOCKSTEP_SHOTS")
	if dir == "" {
		return
	}
	b.look(width, dark)
	eval[bool](b, "scrollTo(0, 0), true")
	height := eval[float64](b, "document.documentElement.scrollHeight")
	all := true
	shot, err := chromedp.Call(
		b.ctx, page.CaptureScreenshot,
		page.CaptureScreenshotParams{
			CaptureBeyondViewport: &all,
			Clip:                  &page.Viewport{Width: float64(width), Height: height, Scale: 1},
		},
	)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), small(b.t, shot.Data), 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// look sets the window's width and the colour scheme.
func (b *browser) look(width int64, dark bool) {
	b.t.Helper()
	scheme, height := "light", int64(900)
	if dark {
		scheme = "dark"
	}
	if width < 500 {
		height = 812
	}
	if err := errors.Join(
		call(b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: height, DeviceScaleFactor: 1, Mobile: width < 500}),
		call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"}}}),
	); err != nil {
		b.t.Fatal(err)
	}
	eval[bool](b, "new Promise((f) => requestAnimationFrame(() => requestAnimationFrame(() => f(true))))")
}

// small writes a picture with its most frequent 256 colours.
func small(t *testing.T, data []byte) []byte {
	t.Helper()
	picture, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	bounds := picture.Bounds()
	count := map[color.RGBA]int{}
	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			count[color.RGBAModel.Convert(picture.At(x, y)).(color.RGBA)]++
		}
	}
	palette := color.Palette{}
	for len(palette) < 256 && len(count) > 0 {
		var most color.RGBA
		for c, n := range count {
			if n > count[most] {
				most = c
			}
		}
		delete(count, most)
		palette = append(palette, most)
	}
	nearest := map[color.RGBA]uint8{}
	out := image.NewPaletted(bounds, palette)
	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			c := color.RGBAModel.Convert(picture.At(x, y)).(color.RGBA)
			i, known := nearest[c]
			if !known {
				i = uint8(palette.Index(c))
				nearest[c] = i
			}
			out.SetColorIndex(x, y, i)
		}
	}
	var b bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&b, out); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// alongside starts one more worker of a fleet, without a door.
func (f *rig) alongside(name string, tamper func(*model.Model) *model.Model) (stop func()) {
	f.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- worker.Serve(ctx, worker.JoinConfig{
			Connect: bus.ConnectConfig{Server: f.url}, Name: name, Version: "1.2.3", Spec: model.DefaultSpec(), Logger: slog.New(slog.DiscardHandler), Tamper: tamper,
		})
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			f.t.Error(err)
		}
	})
	f.t.Cleanup(stop)
	return stop
}

// flipper breaks a bit at the same place of each fold, once it is armed with
// a sequence.
func flipper(at *atomic.Uint64) func(*model.Model) *model.Model {
	return func(m *model.Model) *model.Model {
		if n := at.Load(); n == 0 || m.Seq() != n {
			return m
		}
		for bit := 4000; ; bit++ {
			if flipped, ok := m.Flipped(bit); ok {
				return flipped
			}
		}
	}
}

func penguins(t *testing.T) (events []string) {
	t.Helper()
	data, err := os.ReadFile("../../model/testdata/penguins-shuffled.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if strings.Contains(line, `"attributes"`) { // the last line is a summary
			events = append(events, strings.TrimSpace(line))
		}
	}
	if len(events) != 344 {
		t.Fatal(len(events))
	}
	return events
}

// await waits until there is a snapshot of a checkpoint.
func (f *rig) await(at uint64) {
	f.t.Helper()
	boards, err := fleet.BindBuckets(f.t.Context(), f.nc, "penguins")
	if err != nil {
		f.t.Fatal(err)
	}
	f.eventually(func() bool {
		all, err := fleet.Snapshots(f.t.Context(), boards.Checkpoints)
		return err == nil && len(all) > 0 && all[len(all)-1].Seq == at
	})
}

// traffic gives the screenshots something to show.
func (b *browser) traffic(f *rig) {
	if os.Getenv("LOCKSTEP_SHOTS") == "" {
		return
	}
	const seconds, row = 40, `{"island":"Biscoe","bill_length_mm":46.1,"bill_depth_mm":13.2,"flipper_length_mm":211,"body_mass_g":4500,"sex":"female"}`
	for began := time.Now(); time.Since(began) < seconds*time.Second; {
		rate := 120 + 80*math.Sin(time.Since(began).Seconds()/4)
		for range int(rate / 10) {
			f.ask("predict", row)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// card is how the page shows a replica.
func card(name, condition string) string {
	return fmt.Sprintf(
		`(() => { const c = document.querySelector('.replica[data-key=%q]'); return !!c && %s })()`, name,
		condition,
	)
}

// TestPage opens the page in a browser before its worker runs, and then sees
// what people do with it and what they are to see.
func TestPage(t *testing.T) {
	f := sibling(t, Config{})
	b := openBrowser(t)

	// Nothing answers yet; the page finds the worker by itself.
	f.start(nil)
	b.look(1280, false)
	b.run(chromedp.Navigate(f.door.URL() + "/"))
	stopSecond := f.alongside("web-2", nil)
	var broken atomic.Uint64
	f.alongside("web-3", flipper(&broken))
	b.until(`document.getElementById('link').dataset.is === 'live'`)
	for _, name := range []string{"web-1", "web-2", "web-3"} {
		b.until(card(name, `c.dataset.state === 'ready' && c.dataset.agreement === 'agrees'`))
	}
	if got := eval[string](b, `document.title`); got != "penguins · Lockstep" {
		t.Error(got)
	}

	// Charts grow as events arrive.
	js, err := jetstream.New(f.nc.Conn)
	if err != nil {
		t.Fatal(err)
	}
	publish := func(subject string, events ...string) (last uint64) {
		t.Helper()
		for _, e := range events {
			ack, err := js.Publish(t.Context(), "penguins."+subject, []byte(e))
			if err != nil {
				t.Fatal(err)
			}
			last = ack.Sequence
		}
		return last
	}
	all := penguins(t)
	for _, upto := range []int{100, 344} {
		from := int(eval[float64](b, `Number(document.querySelector('#accuracy svg').dataset.newest ?? 0)`))
		publish("learn", all[from:upto]...)
		for _, chart := range []string{"accuracy", "loss"} {
			b.until(fmt.Sprintf(`document.querySelector('#%s svg').dataset.newest === '%d'`, chart, upto))
			if n := eval[float64](b, fmt.Sprintf(`document.querySelector('#%s .roll').getAttribute('d').split('L').length`, chart)); n < float64(
				upto,
			) {
				t.Errorf("%s has %v points of %d", chart, n, upto)
			}
		}
	}
	b.until(`document.getElementById('learned').textContent === '344'`)
	b.until(`document.getElementById('fleet-line').textContent.includes('all 3 identical')`)
	if got := eval[string](b, `[...document.querySelectorAll('.replica .hash')].map((n) => n.textContent).join()`); got == "" ||
		strings.Count(got, strings.Split(got, ",")[0]) != 3 {
		t.Error("the fingerprints are not equal: ", got)
	}
	status := f.door.worker.Load().server.Status()
	if got, want := eval[string](b, `document.getElementById('accuracy-now').textContent`), fmt.Sprintf("%.1f %%", 100*status.Accuracy); got != want {
		t.Errorf("accuracy %s, want %s", got, want)
	}
	if got := eval[float64](b, `[...document.querySelectorAll('.confusion td:not(.given)')].reduce((sum, c) => sum + (Number(c.textContent) || 0), 0)`); got != 344 {
		t.Errorf("the confusion matrix has %v events", got)
	}

	// A prediction, by keyboard alone, and why.
	b.choose("f-island", "Biscoe")
	for id, v := range map[string]string{"bill_length_mm": "46.1", "bill_depth_mm": "13.2", "flipper_length_mm": "211", "body_mass_g": "4500"} {
		b.put("f-"+id, v)
	}
	b.choose("f-sex", "female")
	b.run(chromedp.Focus(chromedp.CSS("#f-body_mass_g")), chromedp.KeyEvent(kb.Enter))
	b.until(`document.querySelector('#answer .verdict')?.textContent === 'Gentoo'`)
	if got := eval[float64](b, `document.querySelectorAll('#answer .why-table tr').length`); got < 5 {
		t.Errorf("%v reasons", got)
	}
	if got := eval[float64](b, `document.querySelectorAll('#answer .bars li').length`); got != 3 {
		t.Errorf("%v bars", got)
	}
	if got := eval[string](b, `document.querySelector('#answer .because b:nth-of-type(2)').textContent`); got == "" {
		t.Error("compared with nothing")
	}
	other := eval[string](b, `document.querySelector('#answer .bars li:last-child .what').textContent`)
	b.run(chromedp.Focus(chromedp.CSS("#answer .bars li:last-child button")), chromedp.KeyEvent(kb.Enter))
	b.until(fmt.Sprintf(`document.querySelector('#answer .because b:nth-of-type(2)').textContent === %q`, other))

	// What is wrong stands next to its field, in the server's words.
	b.put("f-body_mass_g", "-5")
	b.put("f-bill_depth_mm", "thick")
	b.run(chromedp.Click(chromedp.CSS("#predict")))
	b.until(
		`document.getElementById('f-body_mass_g-wrong').textContent === 'Input should be greater than or equal to 0'`,
	)
	b.until(`document.getElementById('f-bill_depth_mm-wrong').textContent.startsWith('Input should be a valid number')`)
	if got := eval[string](b, `[...document.querySelectorAll('[aria-invalid]')].map((n) => n.id).join()`); got != "f-bill_depth_mm,f-body_mass_g" {
		t.Error("marked: ", got)
	}
	if got := eval[string](b, `document.activeElement.id`); got != "f-bill_depth_mm" {
		t.Error("the focus is on ", got)
	}

	// Null, and the right answer, which is then read back.
	b.put("f-body_mass_g", "")
	b.put("f-bill_depth_mm", "13.4")
	b.choose("f-sex", "null")
	b.choose("a-species", "Gentoo")
	b.run(chromedp.Click(chromedp.CSS("#teach")))
	b.until(
		`document.getElementById('taught').textContent === 'At sequence 346: learned Gentoo. Initially predicted Adelie.'`,
	)
	b.until(`document.getElementById('learned').textContent === '345'`)
	b.until(`document.getElementById('answer-seq').textContent === 'at sequence 346'`)
	if got := eval[float64](b, `document.querySelectorAll('[aria-invalid]').length`); got != 0 {
		t.Errorf("%v fields are marked still", got)
	}
	var stored struct{ Attributes map[string]any }
	attributes, _, err := f.door.worker.Load().Row(t.Context(), 346, -1)
	if err == nil {
		err = json.Unmarshal(attributes, &stored.Attributes)
	}
	if err != nil || stored.Attributes["sex"] != nil || stored.Attributes["body_mass_g"] != nil ||
		stored.Attributes["bill_depth_mm"] != 13.4 {
		t.Errorf("%v %v", stored, err)
	}

	// The tail: what was rejected says why; an event comes back into the form.
	publish("learn", `{"attributes":{"island":"<img src=x onerror=alert(1)>"},"species":"Adelie"}`)
	b.until(`document.querySelector('#tail tr.rejected .reason')?.textContent.includes('Field required')`)
	b.run(chromedp.Click(chromedp.CSS(`#tail tr[data-key="200:"] button, #tail tr:nth-child(9) button`)))
	b.until(`document.getElementById('answer-seq').textContent === 'at sequence 347'`)

	// Charts by keyboard, read out.
	b.run(
		chromedp.Focus(chromedp.CSS("#accuracy .plot")), chromedp.KeyEvent(kb.ArrowLeft),
		chromedp.KeyEvent(kb.ArrowLeft),
	)
	b.until(`document.querySelector('#accuracy [aria-live]').textContent.startsWith('After ')`)
	b.run(chromedp.KeyEvent(kb.Escape), chromedp.Blur(chromedp.CSS("#accuracy .plot")))

	b.named()
	at := publish("ctl.checkpoint", `{"snapshot":true}`) // what a restart begins with
	f.await(at)
	b.traffic(f)
	for _, s := range []struct {
		name  string
		width int64
		dark  bool
	}{{"wide-light", 1280, false}, {"wide-dark", 1280, true}, {"phone-light", 375, false}, {"phone-dark", 375, true}} {
		b.look(s.width, s.dark)
		if got := eval[float64](b, `document.documentElement.scrollWidth`); got > float64(s.width) {
			t.Errorf("%s: the page is %v wide", s.name, got)
		}
		b.shoot("calm-"+s.name+".png", s.width, s.dark)
	}
	b.look(1280, false)

	// A replica whose memory fails, and one that stops.
	broken.Store(at + 2)
	publish("learn", all[:6]...)
	last := publish("ctl.checkpoint", `{"snapshot":false}`)
	b.until(
		card(
			"web-3",
			`c.dataset.state === 'quarantined' && c.dataset.agreement === 'differs' && c.dataset.tone === 'bad' && c.querySelector('.why').textContent.includes('quarantined')`,
		),
	)
	if eval[bool](
		b,
		card(
			"web-3",
			`c.querySelector('.hash').textContent === document.querySelector('.replica[data-key="web-1"] .hash').textContent`,
		),
	) {
		t.Error("another state has the same fingerprint")
	}
	stopSecond()
	b.until(`/^web-2stopped at \d+, last heard \d+ s ago$/.test(document.getElementById('stopped').textContent)`)
	if got := eval[float64](b, `document.querySelectorAll('.replica').length`); got != 2 {
		t.Errorf("%v cards, want one for each replica that runs", got)
	}
	b.until(card("web-1", fmt.Sprintf(`c.dataset.state === 'ready' && c.textContent.includes('at %d')`, last)))
	for _, s := range []struct {
		name  string
		width int64
		dark  bool
	}{{"wide-light", 1280, false}, {"wide-dark", 1280, true}, {"phone-light", 375, false}, {"phone-dark", 375, true}} {
		b.shoot(s.name+".png", s.width, s.dark)
	}
	b.look(1280, false)

	// The worker restarts, and the page comes back by itself.
	b.restarts.Store(true)
	addr := f.door.Addr()
	if err := f.stop(); err != nil {
		t.Fatal(err)
	}
	b.until(`document.getElementById('link').dataset.is === 'lost'`)
	if f.door, err = New(Config{Addr: addr, Version: "1.2.4"}); err != nil {
		t.Fatal(err)
	}
	f.start(nil)
	b.until(
		`document.getElementById('link').dataset.is === 'live' && document.getElementById('foot').textContent.includes('1.2.4')`,
	)
	b.restarts.Store(false)
	// What was before the snapshot is not known, and not made up.
	b.until(`document.querySelector('#accuracy svg .before title')?.textContent.includes('not known here')`)
	publish("learn", all[9])
	b.until(`document.querySelector('#accuracy svg').dataset.newest === '352'`)

	// Nothing went wrong, and nothing came from elsewhere; nor could it.
	b.mu.Lock()
	for _, fault := range b.faults {
		t.Error(fault)
	}
	if len(b.hosts) != 1 || !b.hosts[addr] {
		t.Errorf("asked of %v, the door is %s", b.hosts, addr)
	}
	b.mu.Unlock()
	for attempt, directive := range map[string]string{
		`fetch('http://localhost:1/').catch(() => {})`:                                          "connect-src",
		`document.body.append(Object.assign(new Image(), { src: 'http://localhost:1/x.png' }))`: "img-src",
		`try { document.body.innerHTML = '<b>' } catch {}`:                                      "require-trusted-types-for",
	} {
		got := eval[string](
			b,
			`new Promise((f) => { document.addEventListener('securitypolicyviolation', (e) => f(e.effectiveDirective), { once: true }); `+attempt+` })`,
		)
		if got != directive {
			t.Errorf("%s: %q", attempt, got)
		}
	}
}

// TestPageOfAnotherModel: the page is of whatever the spec declares, from the
// first event on, and texts from outside are no markup.
func TestPageOfAnotherModel(t *testing.T) {
	f := sibling(t, Config{})
	spec, err := model.ParseSpec([]byte(`
name: fruit
input:
  colour: {type: category}
  weight_kg: {type: number, min: 0, max: 9}
label: {name: kind, type: category}
pipeline:
  - union:
    - [{Select: [colour]}, {OneHotEncoder: {}}]
    - [{Select: [weight_kg]}]
  - MultinomialNB: {alpha: 1}
`))
	if err != nil {
		t.Fatal(err)
	}
	f.serve(spec)
	b := openBrowser(t)
	b.look(375, true)
	b.run(chromedp.Navigate(f.door.URL() + "/"))
	b.until(
		`document.getElementById('model').textContent === 'fruit' && document.querySelectorAll('#fields .field').length === 2`,
	)
	b.run(chromedp.Click(chromedp.CSS("#predict")))
	for _, field := range []string{"colour", "weight_kg"} {
		b.until(fmt.Sprintf(`document.getElementById('f-%s-wrong').textContent === 'Field required'`, field))
	}
	other := `document.querySelector('#f-colour + input')`
	eval[bool](b, other+`.focus(), true`)
	b.run(chromedp.KeyEvent(`<b>red</b>`))
	b.put("f-weight_kg", "0.2")
	b.run(chromedp.Click(chromedp.CSS("#predict")))
	b.until(`document.getElementById('answer').textContent.includes('learned nothing yet')`)
	for _, label := range []string{`<i>apple`, `toString`} {
		eval[bool](
			b,
			`(document.querySelector('#answer-field select').value = 'other', document.querySelector('#answer-field select').dispatchEvent(new Event('change', { bubbles: true })), document.querySelector('#answer-field input').value = '', true)`,
		)
		b.run(chromedp.KeyEvent(label), chromedp.Click(chromedp.CSS("#teach")))
		b.until(fmt.Sprintf(`document.getElementById('taught').textContent.includes(%q)`, "learned "+label))
		b.until(fmt.Sprintf(`[...document.querySelectorAll('#a-kind option')].some((o) => o.text === %q)`, label))
		b.until(`!document.querySelector('[aria-disabled]')`) // the answer was asked for again
	}
	b.until(
		`document.querySelectorAll('.confusion tbody tr').length === 2 && document.querySelectorAll('#answer .bars li').length === 2`,
	)
	b.until(`[...document.querySelectorAll('#f-colour option')].some((o) => o.text === '<b>red</b>')`)
	if eval[float64](b, `document.querySelectorAll('main b b, main i').length`) > 0 ||
		eval[float64](b, `document.documentElement.scrollWidth`) > 375 {
		t.Error("a text became markup, or the page is too wide")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, fault := range b.faults {
		t.Error(fault)
	}
}

// serve starts the fleet's worker with a model of its own.
func (f *rig) serve(spec *model.Spec) {
	f.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- Serve(ctx, worker.JoinConfig{
			Connect: bus.ConnectConfig{Server: f.url}, Name: "web-1", Version: "1.2.3", Spec: spec, Logger: slog.New(slog.DiscardHandler),
		}, f.door)
	}()
	f.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			f.t.Error(err)
		}
	})
}

// TestPageOfAWideModel: thirty inputs, twelve long labels that begin alike,
// one replica, and all its events in one message.
func TestPageOfAWideModel(t *testing.T) {
	const inputs, labels, rows = 30, 12, 240
	source := "name: wide\ninput:\n"
	for i := range inputs {
		source += fmt.Sprintf("  measure_number_%d: {type: number, min: 0, max: 1000}\n", i)
	}
	source += "label: {name: kind, type: category, max_bytes: 128}\npipeline:\n  - MultinomialNB: {alpha: 1}\n"
	spec, err := model.ParseSpec([]byte(source))
	if err != nil {
		t.Fatal(err)
	}
	f := sibling(t, Config{})
	f.serve(spec)
	var batch []string
	for i := range rows {
		attributes := map[string]int{}
		for j := range inputs {
			attributes[fmt.Sprint("measure_number_", j)] = 1 + (i*7+j*i%labels*31)%900
		}
		data, err := json.Marshal(
			map[string]any{
				"attributes": attributes,
				"kind":       fmt.Sprintf("department of outpatient services, clinic %d, ward B", i%labels),
			},
		)
		if err != nil {
			t.Fatal(err)
		}
		batch = append(batch, string(data))
	}
	b := openBrowser(t)
	b.look(1280, false)
	b.run(chromedp.Navigate(f.door.URL() + "/"))
	b.until(`document.getElementById('link').dataset.is === 'live'`)
	js, err := jetstream.New(f.nc.Conn)
	if err == nil {
		_, err = js.Publish(t.Context(), "wide.learn", []byte("["+strings.Join(batch, ",")+"]"))
	}
	if err != nil {
		t.Fatal(err)
	}

	// One message, and a point for each event.
	b.until(fmt.Sprintf(`document.querySelector('#accuracy svg').dataset.newest === '%d'`, rows))
	if got := eval[float64](b, `document.querySelector('#accuracy .roll').getAttribute('d').split('L').length`); got < rows {
		t.Errorf("the chart has %v points, want one for each of %d events", got, rows)
	}
	// A fingerprint has the same shape however many there are.
	if got := eval[float64](b, `(() => { const r = document.querySelector('.print').getBoundingClientRect(); return r.width / r.height })()`); math.Abs(
		got-79.0/20,
	) > 0.05 {
		t.Errorf("the fingerprint is %.2f times as wide as high, want %.2f", got, 79.0/20)
	}
	// Labels are told apart, and nothing of what tells them apart is cut off.
	names := `[...document.querySelectorAll('.confusion tbody th')]`
	if got := eval[float64](b, `new Set(`+names+`.map((n) => n.textContent.replace(/^\d+ /, ''))).size`); got != labels {
		t.Errorf(
			"%v different names, want %d: %s", got, labels,
			eval[string](b, names+`.map((n) => n.textContent).join('; ')`),
		)
	}
	for _, width := range []int64{1280, 375} {
		b.look(width, false)
		if got := eval[float64](b, names+`.filter((n) => n.scrollWidth > n.clientWidth).length`); got != 0 {
			t.Errorf("on %d: %v names are cut off", width, got)
		}
		if got := eval[float64](b, `document.documentElement.scrollWidth`); got > float64(width) {
			t.Errorf(
				"on %d the page is %v wide: %s", width, got,
				eval[string](
					b,
					`[...document.querySelectorAll('body *')].filter((n) => n.getBoundingClientRect().right > innerWidth + 1).map((n) => n.tagName + '.' + n.className + '#' + n.id).slice(0, 9).join(' ')`,
				),
			)
		}
		// What is said stands beside the button, wherever one is in the form.
		b.run(chromedp.Focus(chromedp.CSS("#f-measure_number_29")), chromedp.KeyEvent(kb.Enter))
		b.until(`document.querySelector('#answer .verdict')`)
		seen := `['predict', 'answer'].map((id) => (id === 'answer' ? document.querySelector('#answer .verdict') : document.getElementById(id)).getBoundingClientRect())`
		if width > 1000 && !eval[bool](b, seen+`.every((r) => r.top >= 0 && r.bottom <= innerHeight)`) {
			t.Errorf("on %d the button or the answer is out of sight", width)
		}
		if got := eval[float64](b, `(([p, a]) => a.top - p.bottom)(`+seen+`)`); got < 0 || got > 150 {
			t.Errorf("on %d the answer is %v below the button", width, got)
		}
		b.shoot(fmt.Sprintf("wide-model-%d.png", width), width, width < 500)
	}
	b.run(chromedp.Navigate(f.door.URL() + "/docs"))
	for _, width := range []int64{1280, 375} {
		b.look(width, width < 500)
		if got := eval[float64](b, `document.documentElement.scrollWidth`); got > float64(width) {
			t.Errorf("on %d /docs is %v wide", width, got)
		}
		if got := eval[string](b, `getComputedStyle(document.body).maxWidth`); got != "960px" {
			t.Errorf("/docs has not the page's clothes: it is at most %s wide", got)
		}
		b.shoot(fmt.Sprintf("docs-%d.png", width), width, width < 500)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, fault := range b.faults {
		t.Error(fault)
	}
}

// named looks whether all that is to be used has a name for those who do not
// see it.
func (b *browser) named() {
	b.t.Helper()
	used := map[string]int{}
	tree, err := chromedp.Call(b.ctx, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
	if err != nil {
		b.t.Fatal(err)
	}
	for _, n := range tree.Nodes {
		if n.Ignored || n.Role == nil {
			continue
		}
		var role, name string
		_ = json.Unmarshal(n.Role.Value, &role)
		if n.Name != nil {
			_ = json.Unmarshal(n.Name.Value, &name)
		}
		switch role {
		case "button", "textbox", "combobox", "link", "image", "region", "group":
			if used[role]++; name == "" {
				b.t.Errorf("a %s without a name", role)
			}
		}
	}
	if used["button"] < 10 || used["combobox"] < 3 || used["textbox"] < 4 || used["image"] < 2 {
		b.t.Errorf("the page is not as it was: %v", used)
	}
}

// TestPageOfANumber: where the label is a number there are errors, no classes,
// and what each feature adds; a boolean, a text and a moment are given as such.
func TestPageOfANumber(t *testing.T) {
	spec, err := model.ParseSpec([]byte(`
name: price
input:
  size: {type: number, min: 0, max: 10}
  new: {type: boolean}
  since: {type: timestamp, optional: true}
label: {name: eur, type: number, min: 0, max: 1000}
pipeline:
  - Select: [size, new]
  - LinearRegression
`))
	if err != nil {
		t.Fatal(err)
	}
	f := sibling(t, Config{})
	f.serve(spec)
	b := openBrowser(t)
	b.run(chromedp.Navigate(f.door.URL() + "/"))
	b.until(`document.getElementById('link').dataset.is === 'live' && document.querySelectorAll('#fields .field').length === 3`)
	for _, heading := range []string{"h-quality", "h-accuracy", "h-loss"} {
		b.until(fmt.Sprintf(`/error|RMSE/.test(document.getElementById('%s').textContent)`, heading))
	}
	b.until(`document.getElementById('s-classes').hidden`)
	b.put("f-size", "3")
	b.put("f-since", "2026-01-31T08:30:00Z")
	b.put("a-eur", "12.5")
	b.run(chromedp.Click(chromedp.CSS("#teach")))
	b.until(`document.getElementById('taught').textContent.includes('learned 12.5. Initially predicted 0')`)
	b.until(`document.getElementById('learned').textContent === '1' && document.getElementById('accuracy-now').textContent === '12.5'`)
	b.until(`/^2\.\d/.test(document.querySelector('#answer .verdict').textContent)`)
	b.until(`[...document.querySelectorAll('.why-table th')].map((th) => th.title).sort().join() === 'before any,new,size'`)
	b.until(`document.querySelector('#tail .verdict-of').textContent.includes('off by 12.5')`)
}
