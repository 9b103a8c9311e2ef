//! Completions for bash, zsh and fish, generated from the command definitions.
//!
//! `clap_complete` assumes that a subcommand is given. `xfer-hole` usually has an image in that place, so options
//! must be completed after an image, and an image must not be taken for a subcommand.

use clap::Command;
pub use clap_complete::Shell;

/// The completion script of a program for a shell.
pub fn completion(shell: Shell, name: &str, command: &Command) -> String {
    let made = match shell {
        Shell::Zsh if command.has_subcommands() => zsh(name, command),
        Shell::Fish => fish(name, command),
        Shell::Bash => bash(name, command),
        _ => generated(shell, name, command),
    };
    // With two colons zsh would take the following words for those of another command, without options.
    format!("{}\n", made.trim_end().replace("'*::", "'*:"))
}

fn generated(shell: Shell, name: &str, command: &Command) -> String {
    let mut made = Vec::new();
    clap_complete::generate(shell, &mut command.clone(), name, &mut made);
    String::from_utf8(made).unwrap()
}

/// The names of the subcommands, joined by `between`.
fn names(command: &Command, between: &str) -> String {
    command.get_subcommands().map(Command::get_name).collect::<Vec<_>>().join(between)
}

/// The generator replaces the dash in the program's name in two different ways; both are made equal.
fn bash(name: &str, command: &Command) -> String {
    let [whole, split] = ["__", "__subcmd__"].map(|dash| name.replace('-', dash));
    generated(Shell::Bash, name, command).replace(&split, &whole)
}

/// The program's own options are offered unless a subcommand was given, since an image may be there.
fn fish(name: &str, command: &Command) -> String {
    let function = format!("__fish_{}", name.replace('-', "_"));
    let without = format!("-n \"{function}_needs_command\" -");
    let unless = format!("-n \"not {function}_using_subcommand {}\" -", names(command, " "));
    let offer = |line: &str| if line.contains(" -f -a \"") { line.to_owned() } else { line.replace(&without, &unless) };
    generated(Shell::Fish, name, command).lines().map(offer).collect::<Vec<_>>().join("\n")
}

/// One function for the program without a subcommand, one for each subcommand, and one that selects among them.
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
