//! Completions for bash, zsh and fish, made of the definitions of the command lines.
//!
//! What `clap_complete` makes is right for programs that always have a command. `xfer-hole` has an image there more often:
//! its flags must be offered behind one, and an image must not be taken for a command.

use clap::Command;
pub use clap_complete::Shell;

/// The completion of a program for a shell.
pub fn completion(shell: Shell, name: &str, command: &Command) -> String {
    let made = match shell {
        Shell::Zsh if command.has_subcommands() => zsh(name, command),
        Shell::Fish => fish(name, command),
        Shell::Bash => bash(name, command),
        _ => generated(shell, name, command),
    };
    // Two colons would have zsh take what follows for words of another command, without flags.
    format!("{}\n", made.trim_end().replace("'*::", "'*:"))
}

fn generated(shell: Shell, name: &str, command: &Command) -> String {
    let mut made = Vec::new();
    clap_complete::generate(shell, &mut command.clone(), name, &mut made);
    String::from_utf8(made).unwrap()
}

/// The names of the commands, with a word between two.
fn names(command: &Command, between: &str) -> String {
    command.get_subcommands().map(Command::get_name).collect::<Vec<_>>().join(between)
}

/// The generator takes the dash of the program's name for a command at one place, and for none at the other.
fn bash(name: &str, command: &Command) -> String {
    let [whole, split] = ["__", "__subcmd__"].map(|dash| name.replace('-', dash));
    generated(Shell::Bash, name, command).replace(&split, &whole)
}

/// The program's own flags are offered unless there is a command: an image may stand there as well.
fn fish(name: &str, command: &Command) -> String {
    let function = format!("__fish_{}", name.replace('-', "_"));
    let without = format!("-n \"{function}_needs_command\" -");
    let unless = format!("-n \"not {function}_using_subcommand {}\" -", names(command, " "));
    let offer = |line: &str| if line.contains(" -f -a \"") { line.to_owned() } else { line.replace(&without, &unless) };
    generated(Shell::Fish, name, command).lines().map(offer).collect::<Vec<_>>().join("\n")
}

/// A function for the program without a command, one for each command, and one that chooses.
fn zsh(name: &str, command: &Command) -> String {
    let alone = Command::new("alone").args(command.get_arguments().cloned()).version("0");
    let mut functions = zsh_function(&format!("{name}-alone"), &alone);
    let mut offered = String::new();
    for command in command.get_subcommands() {
        functions += &zsh_function(&format!("{name}-{}", command.get_name()), command);
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        offered += &format!(" '{}:{about}'", command.get_name());
    }
    let any = names(command, "|");
    format!(
        "#compdef {name}

autoload -U is-at-least

{functions}# The first word may be a command; behind it the flags are the command's.
_{name}() {{
    if (( CURRENT > 2 )) && [[ $words[2] == ({any}) ]]; then
        shift words
        (( CURRENT-- ))
        _{name}-$words[1]
    elif (( CURRENT == 2 )); then
        local commands; commands=({offered} )
        _describe -t commands 'command' commands
        _{name}-alone
    else
        _{name}-alone
    fi
}}

if [ \"$funcstack[1]\" = \"_{name}\" ]; then
    _{name} \"$@\"
else
    compdef _{name} {name}
fi
"
    )
}

/// The function that completes one command.
fn zsh_function(name: &str, command: &Command) -> String {
    let made = generated(Shell::Zsh, name, command);
    let begin = made.find(&format!("_{name}() {{\n")).unwrap();
    let end = begin + made[begin..].find("\n}\n").unwrap() + 3;
    format!("{}\n", &made[begin..end])
}
