// What the page hears of a course: asks Learning Observer's communication protocol for the export "board" through the
// teacher's own websocket, keeps the latest of each student, and comes back when the connection is lost.
// All pages of a server load this file: nothing happens before the page of this module calls listen.

(function () {
  const ASK_EVERY_SECONDS = 5;
  const LONGEST_WAIT_MS = 30000;
  const STUDENTS = 'students.';

  let socket = null;
  let course = null;
  let heard = null;
  let texts = new Map();
  let changed = false;
  let retryAt = 0;
  let losses = 0;

  function courseOf(hash) {
    const wanted = new URLSearchParams((hash || '').replace(/^#/, '').replace(/;\s*/g, '&'));
    return wanted.get('course_id');
  }

  function begin(id) {
    close();
    course = id;
    heard = { course: id, status: 'closed', error: null, students: {} };
    texts = new Map();
    changed = true;
    retryAt = 0;
    losses = 0;
  }

  function close() {
    if (socket !== null) {
      const old = socket;
      socket = null;
      old.close();
    }
  }

  function say(status) {
    changed = changed || heard.status !== status;
    heard.status = status;
  }

  function take(updates) {
    for (const { path, value } of updates) {
      if (path.startsWith(STUDENTS)) {
        const text = JSON.stringify(value);
        if (texts.get(path) !== text) {
          texts.set(path, text);
          heard.students[path.slice(STUDENTS.length)] = value;
          heard.error = null;
          changed = true;
        }
      } else if (value && value.error) {
        heard.error = typeof value.error === 'string' ? value.error : JSON.stringify(value.error);
        changed = true;
      }
    }
  }

  function connect() {
    const scheme = window.location.protocol === 'https:' ? 'wss:' : 'ws:';
    const one = new WebSocket(`${scheme}//${window.location.host}/wsapi/communication_protocol`);
    socket = one;
    one.onopen = () => {
      if (socket !== one) { return; }
      losses = 0;
      say('open');
      one.send(JSON.stringify({
        lo_exec_events: {
          execution_dag: 'lo_exec_events',
          target_exports: ['board'],
          kwargs: { course_id: course, rerun_dag_delay: ASK_EVERY_SECONDS }
        }
      }));
    };
    one.onmessage = (message) => {
      if (socket === one) { take(JSON.parse(message.data)); }
    };
    one.onclose = () => {
      if (socket !== one) { return; }
      socket = null;
      say('closed');
      retryAt = Date.now() + Math.min(LONGEST_WAIT_MS, 1000 * 2 ** losses);
      losses += 1;
    };
  }

  // Another page of the server may have taken this one's place.
  setInterval(() => {
    if (socket !== null && document.querySelector('.lo-exec-events') === null) {
      close();
      course = null;
      heard = null;
    }
  }, 2000);

  window.dash_clientside = window.dash_clientside || {};
  window.dash_clientside.lo_exec_events = {
    listen: function (hash) {
      const wanted = courseOf(hash);
      if (heard === null || wanted !== course) { begin(wanted); }
      if (course && socket === null && Date.now() >= retryAt) { connect(); }
      if (!changed) { return window.dash_clientside.no_update; }
      changed = false;
      return { ...heard, students: { ...heard.students } };
    }
  };
})();
