"""The program that `CoderProcess` runs: a Hugging Face tokenizer that answers requests until its input ends.

    in    the content of a tokenizer.json, as JSON; then {"encode": ["a text"], "specials": false, "seconds": 5.0}
                                                      or {"decode": [7, 2], "specials": false, "seconds": 5.0}
    out   {"result": [[7, 2]]}, {"result": "a text"} or {"error": "why"}, one per line

The argument of the program is the number of bytes of memory that requests may use in addition to the loaded tokenizer.
The program does not import chopmix, because this would take seconds.
"""

import json
import resource
import signal
import sys


def main() -> None:
    """Loads the tokenizer that the first line of standard input describes. Then answers each further line, a request to
    encode or decode, with one line on standard output."""
    from tokenizers import Tokenizer

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the requesting process decides when this one ends
        signal.signal(number, signal.SIG_IGN)
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    coder = Tokenizer.from_str(json.loads(requests.readline()))
    coder.no_padding()
    coder.no_truncation()
    coder.encode_special_tokens = True  # the text of a special token inside data is data
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limits = used + int(sys.argv[1]), soft, hard
    resource.setrlimit(resource.RLIMIT_DATA, (min(limit for limit in limits if limit != resource.RLIM_INFINITY), hard))
    for line in requests:
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, request["seconds"])  # its signal ends this process during any computation
        try:
            answer = {"result": answered(coder, request)}
        except BaseException as error:  # PanicException of the library is not a subclass of Exception
            answer = {"error": str(error) or type(error).__name__}
        signal.setitimer(signal.ITIMER_PROF, 0)
        answers.write(json.dumps(answer, ensure_ascii=False).encode(errors="surrogatepass") + b"\n")
        answers.flush()


def answered(coder, request: dict) -> list[list[int]] | str:
    """Returns the ids of each text for a request `encode`, and the text of the ids for a request `decode`."""
    if "decode" in request:
        return coder.decode(request["decode"], skip_special_tokens=not request["specials"])
    return [coded.ids for coded in coder.encode_batch(request["encode"], add_special_tokens=request["specials"])]


if __name__ == "__main__":
    main()
